"""Many pictures or a zip, captioned: a gallery, a table, and files to download."""

from __future__ import annotations

from functools import partial

import streamlit as st

import captioner
from captioner.bulk.formats import csv_table, gallery, jsonl
from captioner.page import drawings, pictures, show
from captioner.page.batch import Batch
from captioner.page.texts import say
from captioner.page.visits import own
from captioner.pictures import archives
from captioner.pictures.load import SUFFIXES

TOTAL = archives.MAX_TOTAL // 1_000_000


def view(name: str, model: captioner.Captioner) -> None:
    """Ask for files, caption them, show the captions and offer them for download."""
    batch: Batch = own("batch", Batch)
    key = pictures.box_key("folder")
    st.file_uploader(
        say("folder_intro", count=archives.MAX_FILES, total=TOTAL, **pictures.LIMITS),
        [suffix.removeprefix(".") for suffix in sorted(SUFFIXES)] + ["zip"],
        accept_multiple_files=True,
        key=key,
        max_upload_size=pictures.MAX_MEGABYTES,
        on_change=partial(_take, key, batch),
    )
    pictures.show_messages()
    total = min(batch.total, archives.MAX_FILES)
    bar = st.empty()
    while (done := len(batch.rows)) < total:
        bar.progress(done / total, say("progress", done=done, total=total))
        if not batch.advance(model):
            break
    bar.empty()
    if batch.rows:
        _show(batch)


def _take(key: str, batch: Batch) -> None:
    """Take the files out of the box, unless they are too many megabytes."""
    files = st.session_state[key]
    if sum(file.size for file in files) > archives.MAX_TOTAL:
        pictures.message("error", say("too_large", total=TOTAL))
    else:
        batch.add(files)
        if batch.total > archives.MAX_FILES:
            pictures.message("info", say("too_many", count=archives.MAX_FILES))
    pictures.let_go(files)


def _show(batch: Batch) -> None:
    done, failed = batch.captioned, len(batch.rows) - len(batch.captioned)
    st.write(say("summary", done=len(done), failed=failed))
    with st.container(horizontal=True):
        for label, file, mime, content in (
            ("CSV", "captions.csv", "text/csv", lambda: "\ufeff" + "".join(csv_table(done))),  # for Excel
            ("JSONL", "captions.jsonl", "application/jsonl", lambda: "".join(jsonl(batch.rows))),
            (say("sidecars"), "captions.zip", "application/zip", batch.sidecars),
            (say("web_page"), "captions.html", "text/html", lambda: "".join(gallery(done, batch.thumbnails.get))),
        ):
            label, icon = say("download", what=label), ":material/download:"
            st.download_button(label, content, file_name=file, mime=mime, on_click="ignore", key=file, icon=icon)
        st.button(say("clear"), on_click=batch.clear, type="tertiary")
    pictures_tab, table = st.tabs([say("gallery"), say("table")])
    doubts = {reason: say(text) for reason, text in show.DOUBTS.items()}
    pictures_tab.html(drawings.gallery(batch.rows, batch.thumbnails, doubts))
    cells = {
        say("picture"): [batch.thumbnails.get(row["path"], "") for row in batch.rows],
        say("file"): [row["path"] for row in batch.rows],
        say("caption"): [row.get("caption", "") for row in batch.rows],
        say("doubt"): [doubts.get(row.get("unsure", ""), "") for row in batch.rows],
    }
    if failed:
        cells[say("trouble")] = [row.get("error", "") for row in batch.rows]
    images = {say("picture"): st.column_config.ImageColumn(width="small")}
    table.dataframe(cells, column_config=images, hide_index=True, width="stretch", row_height=56)
