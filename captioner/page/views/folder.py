"""Many pictures: uploads or a folder of this machine, captioned, corrected, and downloaded."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

import captioner
from captioner.bulk.formats import csv_table, gallery, jsonl
from captioner.errors import CaptionerError
from captioner.page import components, pictures, show
from captioner.page.batch import Batch, sidecars
from captioner.page.folder import opened
from captioner.page.models import given
from captioner.page.search import reader_of
from captioner.page.texts import TEXTS, language, say
from captioner.page.visits import own
from captioner.page.work import BEST, FILTERS, LAYOUTS, ORDERS, PAGE, SERVER, Work
from captioner.pictures import archives
from captioner.pictures.load import SUFFIXES

TOTAL = archives.MAX_TOTAL // 1_000_000
PLACES = {"xmp": "place_xmp", "sidecar": "place_sidecar", "embed": "place_embed"}

_WORDS = (  # that the list of pictures says by itself
    *("search", "keys", "edit_label", "save_next", "reject", "cancel", "undo", "saving", "pending", "kept", "saved"),
    *("undone", "nothing_to_undo", "page_of", "next", "previous", "list_label", "use_mine", "keep_theirs", "mine"),
    *("waiting", "checked", "rejected", "filter", "order", "layout", "nothing_here", "describe", "find", "show_all"),
    *("whole_list",),
)


def view(name: str, model: captioner.Captioner) -> None:
    """Ask for files or open the folder, caption the pictures, let a person correct them, and offer downloads."""
    started = given()
    try:
        work = opened(started.folder, started.format) if started.folder else _uploads()
    except CaptionerError as error:
        st.error(pictures.as_text(str(error)))
        return
    if started.folder:
        shown = pictures.as_text(Path(started.folder).name or started.folder)
        st.caption(say("folder_is", name=shown, place=say(PLACES[started.format])))
    progress = st.empty()
    _progress(progress, work)
    if work.paths():
        _show(work, model)
    if work.advance(model):
        _progress(progress, work)  # here Streamlit notices that the visitor has gone to another view
        st.rerun()


def _progress(place: DeltaGenerator, work: Work) -> None:
    """How far captioning is, and in the end what has become of the pictures."""
    done, total = work.left()
    if done < total:
        place.progress(done / total, say("progress", done=done, total=total))
    elif total:
        captioned = len(work.captioned())
        place.write(say("summary", done=captioned, failed=total - captioned))


def _uploads() -> Batch:
    """What the visitor has uploaded, below a box for more."""
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
    messages = st.session_state.get("messages", [])
    pictures.show_messages()
    if batch.waiting:  # the script will run again at once
        st.session_state.messages = messages
    return batch


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


def _show(work: Work, model: captioner.Captioner) -> None:
    reader = reader_of(model)
    work.search(model, reader)
    with st.container(horizontal=True):
        for label, file, mime, content in (
            ("CSV", "captions.csv", "text/csv", lambda: "\ufeff" + "".join(csv_table(work.captioned()))),  # for Excel
            ("JSONL", "captions.jsonl", "application/jsonl", lambda: "".join(jsonl(work.rows()))),
            (say("sidecars"), "captions.zip", "application/zip", partial(sidecars, work)),
            (
                say("web_page"),
                "captions.html",
                "text/html",
                lambda: "".join(gallery(work.captioned(), work.previews.get)),
            ),
        ):
            label, icon = say("download", what=label), ":material/download:"
            if isinstance(work, Batch) or mime != "text/html":  # of a folder, which may be large, there is `captioner`
                st.download_button(label, content, file_name=file, mime=mime, on_click="ignore", key=file, icon=icon)
        if isinstance(work, Batch):
            st.button(say("clear"), on_click=work.clear, type="tertiary")
    shown, everything = work.shown()
    data = {
        "server": SERVER,
        "done": work.done,
        "undone": work.undone,
        "rows": [_row(work, path) for path in shown],
        "total": len(everything),
        "choice": asdict(work.choice),
        "size": PAGE,
        "held": work.held,
        "finds": reader is not None,
        "found": _found(work),
        "ranked": work.answer.ranks is not None,
        "more": work.answer.ranks is not None and len(everything) < work.matching,
        "choices": {
            name: {value: say(value) for value in values}
            for name, values in (("filter", FILTERS), ("order", ORDERS), ("layout", LAYOUTS))
        },
        "texts": {word: TEXTS[word][language()] for word in _WORDS},
        "lasting": not isinstance(work, Batch),
    }
    components.correct(data, {path: work.previews.get(path, "") for path in shown}, work.receive)


def _row(work: Work, path: str) -> dict[str, str]:
    """What the list shows of a picture."""
    row, (mine, reason) = work.row(path) or {}, work.refused.get(path, (None, None))
    if reason == "":
        reason = say("changed_elsewhere")
    doubt = show.DOUBTS.get(row.get("unsure", ""))
    return {
        "path": path,
        "state": work.state(path),
        "caption": row.get("caption", ""),
        "doubt": say(doubt) if doubt else "",
        "trouble": row.get("error") or reason or "",
        **({} if mine is None else {"mine": mine}),
    }


def _found(work: Work) -> str:
    """What became of the search, in a line."""
    answer, words = work.answer, ", ".join(work.answer.unknown)
    if answer.problem:
        return say("cannot_find", reason=answer.problem)
    if answer.lost:
        return say("no_word_known", words=words or answer.asked[0])
    if answer.waits:
        return say("looking_at", done=work.encoded[0], total=work.encoded[1])
    if answer.ranks is None:
        return ""
    best = not work.choice.everything and work.matching > BEST
    line = say("best_of" if best else "best_first", count=BEST, total=work.matching)
    return f"{line} {say('left_out', words=words)}" if words else line
