"""Which picture a document means by an address, and its bytes."""

from __future__ import annotations

import os
import posixpath
from base64 import b64decode
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

from captioner.documents.document import read_member
from captioner.errors import DataError, ImageError, one_line
from captioner.pictures.load import MAX_FILE_BYTES, is_address, picture_size

_PUBLISHED = ("", "static", "public")  # folders of a site's source that become its root


@dataclass(frozen=True)
class Source:
    """Where a picture is: a file, the `member` of an EPUB, or an address; one with "data:" holds the picture itself."""

    place: str
    member: str = ""

    @property
    def remote(self) -> bool:
        """Whether the picture is on the web."""
        return self.place.lower().startswith(("http://", "https://"))

    @property
    def name(self) -> str:
        """What to call the picture, in one short line."""
        return one_line(self.place[:40] + "..." if self._is_data else self.member or self.place)

    @property
    def _is_data(self) -> bool:
        return self.place.lower().startswith("data:")

    def size(self) -> tuple[int, int]:
        """Width and height of a picture that is not remote. Raises ImageError, naming it."""
        return picture_size(self.read() if self.member or self._is_data else self.place, self.name)

    def read(self) -> bytes:
        """The bytes of the picture, which are fetched if it is remote. Raises ImageError, naming it."""
        if self.remote:
            from captioner.documents.fetch import fetch  # whose imports take a while

            return fetch(self.place)
        try:
            if self.member:
                return read_member(self.place, self.member, MAX_FILE_BYTES)
            if not self._is_data:
                return Path(self.place).read_bytes()
            head, _, data = self.place.partition(",")
            return b64decode(unquote(data)) if head.endswith(";base64") else unquote_to_bytes(data)
        except (OSError, DataError, ValueError) as error:
            raise ImageError(f"{self.name}: cannot be read ({one_line(error)})") from error


def find_source(address: str, document: str, member: str = "", members: Collection[str] = ()) -> Source | None:
    """What an address in a document, or in a member of an EPUB, means. None where there is no such picture.

    An address with a "/" in front begins in the folder of the document or in one above, or in static/ or public/ there.
    """
    address = address.strip()
    if address.startswith("//"):
        address = f"https:{address}"
    if address.lower().startswith("data:") or is_address(address):
        return Source(address)
    for name in dict.fromkeys((unquote(address.partition("#")[0].partition("?")[0]), unquote(address), address)):
        if member:
            inside = posixpath.normpath(posixpath.join(posixpath.dirname(member), name))
            if inside in members:
                return Source(document, inside)
        elif name:
            place = next(filter(os.path.isfile, _places(name, os.path.dirname(document))), None)
            if place:
                return Source(os.path.normpath(place))
    return None


def _places(name: str, folder: str) -> Iterator[str]:
    if not name.startswith("/"):
        yield os.path.join(folder, name)
        return
    while True:
        yield from (os.path.join(folder, published, name.lstrip("/")) for published in _PUBLISHED)
        if (above := os.path.dirname(folder)) == folder:
            return
        folder = above
