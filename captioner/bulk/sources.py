"""Pictures for a cluster: paths, addresses, webdataset tar files and parquet files, cut into units of work.

An address is anything that fsspec or pyarrow can open, such as s3://bucket/photos/ or https://host/a.jpg.
This module needs the extra [ray] for those two packages, but not Ray itself.
"""

from __future__ import annotations

import glob
import io
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain, groupby
from pathlib import PurePath
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs

from captioner.errors import ImageError, InputError, one_line
from captioner.inference.parallel import in_batches, in_order
from captioner.pictures.find import find_pictures
from captioner.pictures.load import MAX_FILE_BYTES, SUFFIXES

Unit: TypeAlias = dict[str, Any]  # plain data; "rows" is the number of pictures, None when only reading will tell
# A name, and the path, address or bytes of the picture, or the reason why there are none.
NamedPicture: TypeAlias = tuple[str, "str | bytes | ImageError"]

BATCHES = 4  # of pictures in a unit of paths
_LIMIT = MAX_FILE_BYTES + 1  # bytes to read: one more than allowed, so that the decoder refuses what is too large
_READERS = 16  # threads; they wait for the network most of the time
_COLUMNS = (  # of parquet files, the best first
    *("image", "img", "bytes", "jpg", "jpeg", "png", "webp", "path", "file_name", "image_path", "url", "image_url"),
)
_COLUMN_TYPES = ("binary", "string", "large_binary", "large_string", "dictionary<values=string", "struct<")


def find_sources(arguments: Iterable[str], recursive: bool = False, stdin: Iterable[str] = ()) -> list[str]:
    """Like `pictures.find.find_pictures`, and arguments may also be addresses of files, folders and patterns.

    Raises InputError when an argument leads to nothing, and when no installed package opens an address.
    """
    found = (
        _at_address(argument, recursive) if "://" in argument else find_pictures([argument], recursive, stdin)
        for argument in arguments
    )
    return list(dict.fromkeys(chain.from_iterable(found)))


def units(sources: Iterable[str], batch_size: int) -> Iterator[Unit]:
    """Units of work, in order: a few batches of pictures, a tar file, or a row group of a parquet file.

    Raises InputError for a parquet file that cannot be read or has no column of pictures.
    """
    for archive, group in groupby(sources, _archive):
        if archive == ".tar":
            yield from ({"tar": source, "rows": None} for source in group)
        elif archive == ".parquet":
            yield from chain.from_iterable(map(_row_groups, group))
        else:
            yield from ({"paths": paths, "rows": len(paths)} for paths in in_batches(group, BATCHES * batch_size))


def pictures(unit: Unit, batch_size: int) -> Iterator[NamedPicture]:
    """The pictures of a unit. Those at addresses are fetched up to `batch_size` ahead.

    The name is ARCHIVE/MEMBER in a tar file, ARCHIVE#ROW for bytes in a parquet file, and otherwise the path or address
    as it was given. A picture that cannot be read comes as an ImageError.
    """
    if "tar" in unit:
        yield from _members(unit["tar"])
        return
    found = _rows(unit) if "parquet" in unit else ((path, path) for path in unit["paths"])
    with ThreadPoolExecutor(_READERS) as pool:
        yield from in_order(pool, _fetch, found, batch_size)


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


def _archive(source: str) -> str:
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
            found = [path for path in files.find(root, maxdepth=None if recursive else 1) if not _archive(path)]
        else:
            return [address]
    except Exception as error:  # each filesystem has its own errors
        raise InputError(f"{one_line(address)}: cannot be listed ({one_line(error)})") from error
    if wanted := [path for path in sorted(found) if _is_picture(path) or _archive(path)]:
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
    first = 0
    for group in range(metadata.num_row_groups):
        if rows := metadata.row_group(group).num_rows:
            yield {"parquet": source, "column": column, "group": group, "first": first, "rows": rows}
        first += rows


def _rows(unit: Unit) -> Iterator[NamedPicture]:
    """The pictures of a row group: one for each row, even if the file is damaged."""
    source, number = unit["parquet"], unit["first"]
    try:
        files, path = filesystem(source)
        with files.open(path) as file:
            groups = pq.ParquetFile(file).iter_batches(32, row_groups=[unit["group"]], columns=[unit["column"]])
            for value in (value for batch in groups for value in batch.column(0).to_pylist()):
                if isinstance(value, dict):  # the layout of Hugging Face datasets
                    value = value.get("bytes") or value.get("path")
                name = value if isinstance(value, str) else f"{source}#{number}"
                yield name, value or ImageError(f"{one_line(name)}: the row holds no picture")
                number += 1
    except (OSError, ValueError, InputError) as error:
        for row in range(number, unit["first"] + unit["rows"]):
            yield f"{source}#{row}", ImageError(f"{one_line(source)}#{row}: cannot be read ({one_line(error)})")


def _members(source: str) -> Iterator[NamedPicture]:
    """The pictures of a tar file. If it is damaged, those before the damage and then one error."""
    found = False
    try:
        files, path = filesystem(source)
        with files.open(path) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
            for member in archive:
                if member.isfile() and _is_picture(member.name):
                    found = True
                    content = archive.extractfile(member) or io.BytesIO()
                    yield f"{source}/{member.name}", content.read(_LIMIT)
            # tarfile does not notice when a file was cut off between two members, or inside a header.
            if archive.fileobj is None or archive.fileobj.tell() < archive.offset + tarfile.BLOCKSIZE:
                raise tarfile.ReadError("it is cut off")
    except (OSError, EOFError, ValueError, InputError, tarfile.TarError) as error:
        yield source, ImageError(f"{one_line(source)}: cannot be read to its end ({one_line(error)})")
    else:
        if not found:
            yield source, ImageError(f"{one_line(source)}: holds no pictures")


def _fetch(picture: NamedPicture) -> NamedPicture:
    """The same picture, with its bytes in place of an address."""
    name, source = picture
    if not isinstance(source, str) or "://" not in source:
        return picture
    try:
        files, path = filesystem(source)
        if isinstance(files, LocalFileSystem):
            return name, path
        with files.open(path) as file:
            return name, file.read(_LIMIT)
    except InputError as error:
        return name, ImageError(str(error))
    except FileNotFoundError:
        return name, ImageError(f"{one_line(name)}: no such file")
    except Exception as error:  # each filesystem has its own errors
        return name, ImageError(f"{one_line(name)}: cannot be read ({one_line(error) or type(error).__name__})")
