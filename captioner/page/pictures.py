"""A visitor's pictures. Each is encoded once, kept small, and forgotten when the visit ends."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import streamlit as st
from PIL import Image
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile
from torch import Tensor

import captioner
from captioner.errors import ImageError
from captioner.machine import give_back_freed_memory
from captioner.page.models import TURN
from captioner.page.sample_pictures import SAMPLES, sample
from captioner.page.texts import say
from captioner.pictures.load import ImageSource, load_image

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
    features: dict[str, Tensor] = field(default_factory=dict)  # (1, F), by the model's name

    def for_model(self, model: captioner.Captioner) -> npt.NDArray[np.uint8]:
        """The picture as this model's encoder sees it, (S, S, 3) uint8."""
        size = model.preprocess.size
        if size not in self.prepared:  # a model that was chosen later and reads pictures of another size
            self.prepared[size] = model.prepare(self.preview)
        return self.prepared[size]

    def encoded(self, name: str, model: captioner.Captioner) -> Tensor:
        """The feature (1, F), computed once for each model."""
        if name not in self.features:
            prepared = self.for_model(model)
            with TURN:
                start = time.perf_counter()
                self.features[name] = model.encode([prepared])
                self.encode_ms = 1000 * (time.perf_counter() - start)
                give_back_freed_memory()
        return self.features[name]


def read(name: str, source: ImageSource, model: captioner.Captioner) -> KeptPicture:
    """Read a picture from the bytes of a file or from an RGB picture. Raises ImageError when it cannot be read."""
    data: Any = source.tobytes() if isinstance(source, Image.Image) else source
    with TURN:
        small = load_image(source, max_pixels=MAX_PIXELS, smallest=max(PREVIEW)).copy()
        small.thumbnail(PREVIEW)
        preview = io.BytesIO()
        small.save(preview, "JPEG", quality=90)
        prepared = {model.preprocess.size: model.prepare(source)}  # as the command reads it
    return KeptPicture(name, hashlib.sha256(data).hexdigest(), preview.getvalue(), prepared)


def reason(error: ImageError) -> str:
    """Why a picture cannot be read, without the name that `load_image` gives to bytes."""
    return str(error).removeprefix("the picture: ")


def current(model: captioner.Captioner) -> KeptPicture | None:
    """The picture that a view is about: the visitor's choice among the kept ones. With none, ask for pictures."""
    pictures = taken()
    if not pictures:
        take_in(model)
        return None
    if st.session_state.get("current") not in pictures:
        st.session_state.current = list(pictures)[-1]
    if len(pictures) > 1:
        names = {digest: picture.name for digest, picture in pictures.items()}
        st.pills(say("which"), list(names), key="current", required=True, format_func=names.__getitem__)
    return pictures[st.session_state.current]


def taken() -> dict[str, KeptPicture]:
    """The visitor's pictures by the digest of their content, the oldest first."""
    pictures: dict[str, KeptPicture] = st.session_state.setdefault("pictures", {})
    return pictures


def take_in(model: captioner.Captioner) -> None:
    """Ask for pictures: from files, the camera or samples. Callbacks read them before the page is drawn again."""
    sources = ["upload", "camera", "sample"]
    source = st.segmented_control(
        say("source"), sources, default="upload", required=True, format_func=say, label_visibility="collapsed"
    )
    key = box_key(source)
    on_change = partial(_add_uploads, key, model)
    if source == "camera":
        st.camera_input(say("take"), key=key, on_change=on_change)
    elif source == "sample":
        with st.container(horizontal=True, gap="small"):
            for name in SAMPLES:
                with st.container(width=150, gap="xxsmall"):
                    st.image(sample(name), alt="", width="stretch")  # the button says what it is
                    new = [(say(name), sample(name))]
                    st.button(say(name), width="stretch", key=f"sample-{name}", on_click=_add, args=(new, model))
    else:
        label = say("drop", count=MAX_PICTURES, **LIMITS)
        st.file_uploader(
            label, "image", accept_multiple_files=True, key=key, max_upload_size=MAX_MEGABYTES, on_change=on_change
        )
    for kind, message in st.session_state.pop("messages", []):
        getattr(st, kind)(message)


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
    _add([(upload.name, upload.getvalue()) for upload in uploads], model)
    let_go(uploads)


def _add(new: Sequence[tuple[str, ImageSource]], model: captioner.Captioner) -> None:
    """Keep new pictures. The page then names those that cannot be read, and says when old ones were removed."""
    pictures, messages = taken(), st.session_state.setdefault("messages", [])
    for name, source in new:
        try:
            picture = read(name, source, model)
        except ImageError as error:
            messages.append(("error", say("broken", name=as_text(name), reason=as_text(reason(error)))))
            continue
        pictures.setdefault(picture.digest, picture)
        st.session_state.current = picture.digest
    if len(pictures) > MAX_PICTURES:
        for digest in list(pictures)[:-MAX_PICTURES]:
            del pictures[digest]
        messages.append(("info", say("full", count=MAX_PICTURES)))


def as_text(name: str) -> str:
    """A file's name with all of Markdown's signs escaped."""
    return "".join("\\" + letter if letter in r"\`*_{}[]()<>#+-.!|~$:" else letter for letter in name)
