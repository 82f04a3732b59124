"""Pictures for a cluster: paths, addresses, webdataset tar files and parquet files, cut into units of work.

An address is anything that fsspec or pyarrow can open, such as s3://bucket/photos/ or https://host/a.jpg.
This module needs the extra [ray] for those two packages, but not Ray itself.
"""

from __future__ import annotations

import glob
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from itertools import chain, filterfalse, groupby, zip_longest
from operator import itemgetter
from pathlib import PurePath
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs

from captioner.bulk.earlier import Earlier, as_text
from captioner.data.readers.folders import TEXTS
from captioner.errors import DataError, ImageError, InputError, one_line
from captioner.files import decoded
from captioner.inference.parallel import in_batches, in_order
from captioner.pictures.find import find_pictures
from captioner.pictures.load import MAX_FILE_BYTES, SUFFIXES

Unit: TypeAlias = dict[str, Any]  # plain data; "rows" is the number of pictures, None when only reading will tell
Picture: TypeAlias = "str | bytes | ImageError"  # its path, address or bytes, or the reason why there are none
NamedPicture: TypeAlias = tuple[str, "Picture | Given"]

BATCHES = 4  # of pictures in a unit of paths
_LIMIT = MAX_FILE_BYTES + 1  # bytes to read: one more than allowed, so that the decoder refuses what is too large
_READERS = 16  # threads; they wait for the network most of the time
_COLUMNS = (  # of parquet files, the best first
    *("image", "img", "bytes", "jpg", "jpeg", "png", "webp", "path", "file_name", "image_path", "url", "image_url"),
)
_TEXTS = ("caption", "text")  # columns with captions
_STRINGS = ("string", "large_string", "dictionary<values=string")
_COLUMN_TYPES = ("binary", "large_binary", *_STRINGS, "struct<")


class Given(NamedTuple):
    """A picture that has a caption in its tar file or table."""

    caption: str
    picture: Picture


def find_sources(arguments: Iterable[str], recursive: bool = False, stdin: Iterable[str] = ()) -> list[str]:
    """Like `pictures.find.find_pictures`, and arguments may also be addresses of files, folders and patterns.

    Raises InputError when an argument leads to nothing, and when no installed package opens an address.
    """
    found = (
        _at_address(argument, recursive) if "://" in argument else find_pictures([argument], recursive, stdin)
        for argument in arguments
    )
    return list(dict.fromkeys(chain.from_iterable(found)))


def units(sources: Iterable[str], batch_size: int, earlier: Earlier | None = None) -> Iterator[Unit]:
    """Units of work, in order: a few batches of pictures, a tar file, or a row group of a parquet file.

    Pictures that have rows of `earlier` runs are left out. Raises InputError for a parquet file that cannot be read or
    has no column of pictures.
    """
    earlier = earlier or Earlier()
    for archive, group in groupby(sources, archive_of):
        if archive == ".tar":
            known = ((source, earlier.members(source)) for source in group)
            yield from ({"tar": tar, "skip": sorted(skip), "rows": None} for tar, skip in known if skip is not None)
        elif archive == ".parquet":
            found = chain.from_iterable(map(_row_groups, group))
            yield from filter(itemgetter("rows"), (_without(unit, earlier) for unit in found))
        else:
            new = filterfalse(earlier.take, group)
            yield from ({"paths": paths, "rows": len(paths)} for paths in in_batches(new, BATCHES * batch_size))


def pictures(unit: Unit, batch_size: int, look: bool = True) -> Iterator[NamedPicture]:
    """The pictures of a unit. Those at addresses are fetched up to `batch_size` ahead.

    The name is ARCHIVE/MEMBER in a tar file, ARCHIVE#ROW for bytes in a parquet file, and otherwise the path or address
    as it was given. A picture that cannot be read comes as an ImageError. One whose caption is in the table, or in the
    tar file as a .caption, .txt or .json next to it, comes as Given; it is fetched if somebody will `look` at it.
    """
    if "tar" in unit:
        yield from _members(unit["tar"], {*unit["skip"]})
        return
    found = _rows(unit) if "parquet" in unit else ((path, path) for path in unit["paths"])
    with ThreadPoolExecutor(_READERS) as pool:
        yield from in_order(pool, partial(_fetch, look=look), found, batch_size)


def filesystem(address: str) -> tuple[AbstractFileSystem, str]:
    """The filesystem of an address or a path, and the path inside it. Raises InputError when none is installed."""
    try:
        return url_to_fs(address)  # type: ignore[no-any-return]  # fsspec has no types
    except (ImportError, ValueError) as error:
        reason: Exception = error
    scheme, _, path = address.partition("://")
    if scheme in ("s3", "gs"):  # without s3fs or gcsfs there is still what comes with pyarrow
        try:
            return _of_pyarrow(f"{scheme}://{path.partition('/')[0]}"), path
        except OSError as error:
            reason = error
        except (ImportError, ValueError):
            pass
    raise InputError(f"{one_line(address)}: cannot be opened ({one_line(reason)})") from reason


@cache
def _of_pyarrow(bucket: str) -> ArrowFSWrapper:
    return ArrowFSWrapper(fs.FileSystem.from_uri(bucket)[0])


def archive_of(source: str) -> str:
    """The suffix of a source that holds pictures: .tar, .parquet, or nothing."""
    suffix = PurePath(source).suffix.lower()
    return suffix if suffix in (".tar", ".parquet") else ""


def _is_picture(path: str) -> bool:
    """Whether a path has the suffix of a picture and is not hidden."""
    return PurePath(path).suffix.lower() in SUFFIXES and not PurePath(path).name.startswith(".")


def _at_address(address: str, recursive: bool) -> list[str]:
    files, root = filesystem(address)
    on_the_web = address.startswith("http")  # where "?" is part of an address, not of a pattern
    try:
        if glob.has_magic(address) and not on_the_web:
            found = files.glob(root)
        elif address.endswith("/") or (not on_the_web and files.isdir(root)):
            found = [path for path in files.find(root, maxdepth=None if recursive else 1) if not archive_of(path)]
        else:
            return [address]
    except Exception as error:  # each filesystem has its own errors
        raise InputError(f"{one_line(address)}: cannot be listed ({one_line(error)})") from error
    if wanted := [path for path in sorted(found) if _is_picture(path) or archive_of(path)]:
        return [files.unstrip_protocol(path) for path in wanted]
    raise InputError(f"{one_line(address)}: no pictures there")


def _row_groups(source: str) -> Iterator[Unit]:
    files, path = filesystem(source)
    try:
        with files.open(path) as file:
            footer = pq.ParquetFile(file)
            metadata, schema = footer.metadata, footer.schema_arrow
    except pa.ArrowInvalid as error:
        raise InputError(f"{one_line(source)}: not a parquet file ({one_line(error)})") from error
    by_name = {field.name.lower(): field for field in schema if str(field.type).startswith(_COLUMN_TYPES)}
    column = next((by_name[name].name for name in _COLUMNS if name in by_name), None)
    if column is None:
        looked = f"looked for {', '.join(_COLUMNS)} among {', '.join(map(one_line, schema.names))}"
        raise InputError(f"{one_line(source)}: no column of pictures, their paths or addresses: {looked}")
    texts = [field.name for field in schema if field.name.lower() in _TEXTS and str(field.type).startswith(_STRINGS)]
    kind = str(schema.field(column).type)
    paths = [column] if kind.startswith(_STRINGS) else [f"{column}.path"] if "path: string" in kind else []
    about = {"parquet": source, "column": column, "texts": texts, "paths_in": paths, "skip": []}
    first = 0
    for group in range(metadata.num_row_groups):
        if rows := metadata.row_group(group).num_rows:
            yield {**about, "group": group, "first": first, "rows": rows}
        first += rows


def _values(unit: Unit, columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a row group, a few at a time."""
    files, path = filesystem(unit["parquet"])
    with files.open(path) as file:
        for batch in pq.ParquetFile(file).iter_batches(32, row_groups=[unit["group"]], columns=columns):
            yield from batch.to_pylist()


def _without(unit: Unit, earlier: Earlier) -> Unit:
    """The unit without the rows of pictures that have captions."""
    source, column, first, paths = unit["parquet"], unit["column"], unit["first"], []
    with suppress(OSError, ValueError):  # a damaged table is reported when it is read as a whole
        for row in _values(unit, unit["paths_in"]) if unit["paths_in"] and earlier.pictures else ():
            paths.append(row[column]["path"] if isinstance(row[column], dict) else row[column])
    named = zip_longest(range(first, first + unit["rows"]), paths)
    skip = [n for n, path in named if earlier.take(f"{source}#{n}") or (path and earlier.take(path))]
    return {**unit, "skip": skip, "rows": unit["rows"] - len(skip)}


def _rows(unit: Unit) -> Iterator[NamedPicture]:
    """The pictures of a row group: one for each row that is wanted, even if the file is damaged."""
    source, number, skip = unit["parquet"], unit["first"], {*unit["skip"]}
    end = number + unit["rows"] + len(skip)
    try:
        for row in _values(unit, [unit["column"], *unit["texts"]]):
            value, *texts = (row[column] for column in (unit["column"], *unit["texts"]))
            if isinstance(value, dict):  # the layout of Hugging Face datasets
                value = value.get("bytes") or value.get("path")
            name = value if isinstance(value, str) else f"{source}#{number}"
            if number not in skip:
                yield name, _given(value or ImageError(f"{one_line(name)}: the row holds no picture"), *texts)
            number += 1
    except (OSError, ValueError, InputError) as error:
        for rest in filterfalse(skip.__contains__, range(number, end)):
            yield f"{source}#{rest}", ImageError(f"{one_line(source)}#{rest}: cannot be read ({one_line(error)})")


def _given(picture: Picture, *texts: str | None) -> Picture | Given:
    """The picture with the first of the texts that says anything, as it is but for line ends around it."""
    said = (text.strip("\r\n") for text in texts if text and text.strip())
    return Given(caption, picture) if (caption := next(said, None)) else picture


def _members(source: str, skip: set[str]) -> Iterator[NamedPicture]:
    """The pictures of a tar file. If it is damaged, those that are whole before it and then one error."""
    found, problem = False, ""
    stem, contents, texts = "", dict[str, bytes](), dict[str, str]()  # of the members that were read last

    def sample() -> Iterator[NamedPicture]:
        for name, content in contents.items():
            yield f"{source}/{name}", _given(content, *(texts.get(suffix) for suffix in TEXTS))

    try:
        files, path = filesystem(source)
        with files.open(path) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
            for member in filter(tarfile.TarInfo.isfile, archive):
                name, suffix = member.name, PurePath(member.name).suffix.lower()
                if stem != (stem := name[: len(name) - len(suffix)]):
                    yield from sample()
                    contents, texts = {}, {}
                if _is_picture(name):
                    found = True
                    if as_text(name) not in skip:
                        contents[name] = (archive.extractfile(member) or io.BytesIO()).read(_LIMIT)
                elif suffix in TEXTS:
                    texts[suffix] = _text((archive.extractfile(member) or io.BytesIO()).read(_LIMIT), suffix)
            # tarfile does not notice when a file was cut off between two members, or inside a header.
            if archive.fileobj is None or archive.fileobj.tell() < archive.offset + tarfile.BLOCKSIZE:
                raise tarfile.ReadError("it is cut off")
    except (OSError, EOFError, ValueError, InputError, tarfile.TarError) as error:
        problem = f"cannot be read to its end ({one_line(error)})"
    # The caption of the last picture may lie behind the damage. Without a row, it is wanted once that is mended.
    yield from (each for each in sample() if not problem or isinstance(each[1], Given))
    if problem or not found:
        yield source, ImageError(f"{one_line(source)}: {problem or 'holds no pictures'}")


def _text(data: bytes, suffix: str) -> str:
    """The caption in a member of a tar file; empty if there is none."""
    try:
        text = decoded(data)[0]
        content = json.loads(text) if suffix == ".json" else text  # that of img2dataset
    except (DataError, ValueError, RecursionError):
        return ""
    caption = content.get("caption") if isinstance(content, dict) else content
    return caption if isinstance(caption, str) else ""


def _fetch(picture: NamedPicture, look: bool) -> NamedPicture:
    """The same picture, with its bytes in place of an address."""
    name, source = picture
    if isinstance(source, Given):
        return name, Given(source.caption, _content(name, source.picture)) if look else source
    return name, _content(name, source)


def _content(name: str, source: Picture) -> Picture:
    if not isinstance(source, str) or "://" not in source:
        return source
    try:
        files, path = filesystem(source)
        if isinstance(files, LocalFileSystem):
            return path
        with files.open(path) as file:
            return file.read(_LIMIT)  # type: ignore[no-any-return]  # fsspec has no types
    except InputError as error:
        return ImageError(str(error))
    except FileNotFoundError:
        return ImageError(f"{one_line(name)}: no such file")
    except Exception as error:  # each filesystem has its own errors
        return ImageError(f"{one_line(name)}: cannot be read ({one_line(error) or type(error).__name__})")
