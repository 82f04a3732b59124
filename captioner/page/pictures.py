"""A visitor's pictures. Each is encoded once, kept small, and forgotten when the visit ends."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

import captioner
from captioner.errors import ImageError
from captioner.inference.captioner import Features
from captioner.machine import give_back_freed_memory
from captioner.page.models import TURN
from captioner.page.texts import say
from captioner.page.visits import own
from captioner.pictures.load import SUFFIXES, load_image
from captioner.pictures.sample_pictures import SAMPLES

MAX_PICTURES = 12
MAX_MEGABYTES = 50  # a file; also in .streamlit/config.toml
MAX_PIXELS = 50_000_000  # a picture; 150 MB while it is read
LIMITS = {"size": MAX_MEGABYTES, "pixels": MAX_PIXELS // 1_000_000}  # as texts name them
PREVIEW = (1024, 1024)


@dataclass
class KeptPicture:
    """What the page keeps of a picture: a preview, what the encoder sees, and features. The file itself is freed."""

    name: str
    digest: str  # of its content
    preview: bytes  # JPEG
    prepared: dict[int, npt.NDArray[np.uint8]]  # by the encoder's image side
    encode_ms: float = 0.0
    features: dict[str, Features] = field(default_factory=dict)  # (1, F), by the model's name

    def for_model(self, model: captioner.Captioner) -> npt.NDArray[np.uint8]:
        """The picture as this model's encoder sees it, (S, S, 3) uint8."""
        size = model.preprocess.size
        if size not in self.prepared:  # a model that was chosen later and reads pictures of another size
            self.prepared[size] = model.prepare(self.preview)
        return self.prepared[size]

    def encoded(self, name: str, model: captioner.Captioner) -> Features:
        """The feature (1, F), computed once for each model."""
        if name not in self.features:
            prepared = self.for_model(model)
            with TURN:
                start = time.perf_counter()
                self.features[name] = model.encode([prepared])
                self.encode_ms = 1000 * (time.perf_counter() - start)
                give_back_freed_memory()
        return self.features[name]


def read(name: str, data: bytes, model: captioner.Captioner) -> KeptPicture:
    """Read a picture from the bytes of a file. Raises ImageError when it cannot be read."""
    with TURN:
        small = load_image(data, max_pixels=MAX_PIXELS, smallest=max(PREVIEW)).copy()
        small.thumbnail(PREVIEW)
        preview = io.BytesIO()
        small.save(preview, "JPEG", quality=90)
        prepared = {model.preprocess.size: model.prepare(data)}  # as the command reads it
    return KeptPicture(name, hashlib.sha256(data).hexdigest(), preview.getvalue(), prepared)


def reason(error: ImageError) -> str:
    """Why a picture cannot be read, without the name that `load_image` gives to bytes."""
    return str(error).removeprefix("the picture: ")


def current(model: captioner.Captioner) -> KeptPicture | None:
    """The picture that a view is about: the visitor's choice among the kept ones. With none, ask for pictures."""
    row, pictures = bar(model), taken()
    if not pictures:
        return None
    chosen = st.session_state.get("current")
    # The choice outlasts the buttons, which other views and one picture do without.
    st.session_state.current = st.session_state.picked = chosen if chosen in pictures else list(pictures)[-1]
    if len(pictures) > 1:
        names = {digest: shortened(picture.name) for digest, picture in pictures.items()}
        shown = names.__getitem__
        row.pills(say("picture"), list(names), key="picked", required=True, format_func=shown, on_change=_choose)
    return pictures[st.session_state.current]


def _choose() -> None:
    st.session_state.current = st.session_state.picked


def taken() -> dict[str, KeptPicture]:
    """The visitor's pictures by the digest of their content, the oldest first."""
    pictures: dict[str, KeptPicture] = own("pictures", dict)
    return pictures


def remove(digest: str) -> None:
    """Forget a picture."""
    taken().pop(digest, None)


def bar(model: captioner.Captioner) -> DeltaGenerator:
    """Ask for pictures, in a popover if there are some already. Returns a row for more elements beside its button."""
    row = st.container(horizontal=True, vertical_alignment="bottom")
    if taken():
        # A popover of another key is closed, so it closes once it has been used.
        with row.popover(say("add"), icon=":material/add_photo_alternate:", key=box_key("add")):
            _take_in(model)
    else:
        _take_in(model)
    show_messages()
    return row


def _take_in(model: captioner.Captioner) -> None:
    """Ask for pictures: from files, the camera or samples. Callbacks read them before the page is drawn again."""
    source = st.segmented_control(
        say("source"),
        ["upload", "camera"],
        default="upload",
        required=True,
        format_func=say,
        label_visibility="collapsed",
    )
    key = box_key(source)
    on_change = partial(_add_uploads, key, model)
    if source == "camera":
        st.camera_input(say("take"), key=key, on_change=on_change)
    else:
        label = say("drop", count=MAX_PICTURES, **LIMITS)
        kinds = [suffix.removeprefix(".") for suffix in sorted(SUFFIXES)]
        st.file_uploader(
            label, kinds, accept_multiple_files=True, key=key, max_upload_size=MAX_MEGABYTES, on_change=on_change
        )
    st.caption(say("or_sample"))
    with st.container(horizontal=True, gap="small", key="samples"):
        for name, file in SAMPLES.items():
            with st.container(width=108, gap="xxsmall"):
                st.image(str(file), alt="", width="stretch")  # the button says what it is
                st.button(say(name), width="stretch", key=f"sample-{name}", on_click=_add_sample, args=(name, model))


def message(kind: str, text: str) -> None:
    """Keep a message, an "error" or an "info", for the next time that the page is drawn."""
    st.session_state.setdefault("messages", []).append((kind, text))


def show_messages() -> None:
    """Show the messages that were kept."""
    for kind, text in st.session_state.pop("messages", []):
        getattr(st, kind)(text)


def box_key(name: str) -> str:
    """The key of an upload box. It changes with `let_go`, and a box with a new key is empty."""
    return f"{name}{st.session_state.setdefault('uploads', 0)}"


def let_go(uploads: Sequence[UploadedFile]) -> None:
    """Empty the box, and free the memory of uploads, which Streamlit would keep until minutes after the visit."""
    st.session_state.uploads += bool(uploads)
    context = get_script_run_ctx()
    if context and isinstance(context.uploaded_file_mgr, MemoryUploadedFileManager):
        for upload in uploads:
            context.uploaded_file_mgr.remove_file(context.session_id, upload.file_id)


def _add_uploads(key: str, model: captioner.Captioner) -> None:
    """Read what lies in the upload box or in the camera."""
    uploads = st.session_state[key] or []
    uploads = uploads if isinstance(uploads, list) else [uploads]
    with st.spinner(say("reading"), show_time=False):
        _add([(upload.name, upload.getvalue()) for upload in uploads], model)
    let_go(uploads)


def _add_sample(name: str, model: captioner.Captioner) -> None:
    _add([(SAMPLES[name].name, SAMPLES[name].read_bytes())], model)
    st.session_state.uploads += 1


def _add(new: Sequence[tuple[str, bytes]], model: captioner.Captioner) -> None:
    """Keep new pictures. The page then names those that cannot be read, and says when old ones were removed."""
    pictures = taken()
    for name, data in new:
        try:
            picture = read(name, data, model)
        except ImageError as error:
            message("error", say("broken", name=as_text(name), reason=as_text(reason(error))))
            continue
        pictures.setdefault(picture.digest, picture)
        st.session_state.current = picture.digest
    if len(pictures) > MAX_PICTURES:
        for digest in list(pictures)[:-MAX_PICTURES]:
            del pictures[digest]
        message("info", say("full", count=MAX_PICTURES))


def shortened(name: str) -> str:
    """A file's name on one button."""
    return name if len(name) <= 24 else f"{name[:14]}…{name[-9:]}"


def as_text(name: str) -> str:
    """A file's name with all of Markdown's signs escaped."""
    return "".join("\\" + letter if letter in r"\`*_{}[]()<>#+-.!|~$:" else letter for letter in name)
