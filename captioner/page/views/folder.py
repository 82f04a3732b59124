"""Many pictures or a zip, captioned: a table, a gallery, and files to download."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

import captioner
from captioner.bulk.formats import csv_table, gallery, jsonl, sidecar_paths, sidecar_text
from captioner.errors import ImageError
from captioner.inference.parallel import in_batches
from captioner.inference.results import Row, row_of
from captioner.machine import give_back_freed_memory
from captioner.page import pictures
from captioner.page.models import TURN
from captioner.page.texts import say
from captioner.pictures import archives
from captioner.pictures.archives import Member
from captioner.pictures.load import SIDE as THUMBNAIL
from captioner.pictures.load import SUFFIXES, ImageSource, load_image, thumbnail

BATCH = 16  # pictures after which other visitors get their turn
GALLERY = 60  # pictures shown at once


@dataclass
class Collection:
    """What became of a visitor's pictures: rows for the output formats, and thumbnails by name."""

    rows: list[Row]
    thumbnails: dict[str, str]
    cut: bool  # whether there were more than MAX_FILES


def view(name: str, model: captioner.Captioner) -> None:
    """Ask for files, caption them, show the captions and offer them for download."""
    total = archives.MAX_TOTAL // 1_000_000
    files = st.file_uploader(
        say("folder_intro", count=archives.MAX_FILES, total=total, **pictures.LIMITS),
        [suffix.removeprefix(".") for suffix in sorted(SUFFIXES)] + ["zip"],
        accept_multiple_files=True,
        key=pictures.box_key("folder"),
        max_upload_size=pictures.MAX_MEGABYTES,
    )
    if sum(file.size for file in files) > archives.MAX_TOTAL:
        pictures.let_go(files)
        st.session_state.too_large = True
        st.rerun()
    if st.session_state.pop("too_large", False):
        st.error(say("too_large", total=total))
    if files and st.button(say("start"), type="primary"):
        st.session_state.batch = _caption(model, files)
        pictures.let_go(files)
        st.rerun()
    if batch := st.session_state.get("batch"):
        _show(batch)


def _caption(model: captioner.Captioner, files: Sequence[UploadedFile]) -> Collection:
    total = archives.count(files)
    batch = Collection([], {}, cut=total > archives.MAX_FILES)
    total = min(total, archives.MAX_FILES)
    bar = st.progress(0.0, say("progress", done=0, total=total))
    for part in in_batches(archives.members(files), BATCH):
        named = [(member.name, _prepared(model, member, batch.thumbnails)) for member in part]
        with TURN:
            batch.rows += map(row_of, model.caption_together(named))
        done = len(batch.rows)
        bar.progress(min(1.0, done / total), say("progress", done=done, total=total))
    give_back_freed_memory()
    return batch


def _prepared(model: captioner.Captioner, member: Member, thumbnails: dict[str, str]) -> ImageSource | ImageError:
    """A picture as the model sees it, whose thumbnail is now among the others, or the reason why there is none."""
    if member.data is None:
        return ImageError(member.error)
    try:
        with TURN:
            image = load_image(member.data, max_pixels=pictures.MAX_PIXELS, smallest=THUMBNAIL)
            prepared = model.prepare(member.data)  # read as the command reads it
            thumbnails[member.name] = thumbnail(image) or ""
        return prepared
    except ImageError as error:
        return ImageError(pictures.reason(error))


def _show(batch: Collection) -> None:
    done = [row for row in batch.rows if "caption" in row]
    st.write(say("summary", done=len(done), failed=len(batch.rows) - len(done)))
    if batch.cut:
        st.info(say("too_many", count=archives.MAX_FILES))
    with st.container(horizontal=True):
        for label, file, mime, content in (
            ("CSV", "captions.csv", "text/csv", "\ufeff" + "".join(csv_table(done))),  # the mark is for Excel
            ("JSONL", "captions.jsonl", "application/jsonl", "".join(jsonl(batch.rows))),
            (say("sidecars"), "captions.zip", "application/zip", _sidecars(done)),
            (say("web_page"), "captions.html", "text/html", "".join(gallery(done, batch.thumbnails.get))),
        ):
            st.download_button(label, content, file_name=file, mime=mime, on_click="ignore", key=file)
    cells = {
        say("picture"): [batch.thumbnails.get(row["path"], "") for row in batch.rows],
        say("file"): [row["path"] for row in batch.rows],
        say("caption"): [row.get("caption", "") for row in batch.rows],
        say("trouble"): [row.get("error", "") for row in batch.rows],
    }
    table, pictures_tab = st.tabs([say("table"), say("gallery")])
    images = {say("picture"): st.column_config.ImageColumn()}
    table.dataframe(cells, column_config=images, hide_index=True, width="stretch")
    with pictures_tab, st.container(horizontal=True):
        for row in done[:GALLERY]:
            with st.container(width=190, gap="xxsmall"):
                st.image(batch.thumbnails[row["path"]], alt=row["caption"])
                st.caption(pictures.as_text(row["caption"]))


def _sidecars(rows: Sequence[Row]) -> bytes:
    """A zip with a text file for each picture, named as the command's sidecars are."""
    paths = sidecar_paths(row["path"] for row in rows)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for row in rows:
            archive.writestr(paths[row["path"]].as_posix(), sidecar_text(row))
    return file.getvalue()
