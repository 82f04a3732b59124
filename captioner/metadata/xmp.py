"""Captions in XMP, the RDF that photo programs keep in sidecar files and inside pictures.

A caption is written as dc:description, which photo programs show, and as the alternative text of IPTC. Properties of a
namespace of our own stand beside it: how sure the captioner was, a digest of what it wrote, and in sidecars one of the
picture. By the first we know our own caption again, and whether a person changed it since; by the second a picture
that was moved. All else in the XMP stays as it is.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from lxml import etree

from captioner.errors import DataError

Element: TypeAlias = Any  # lxml has no types

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_NAMESPACES = {
    "rdf": _RDF,
    "dc": "http://purl.org/dc/elements/1.1/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "captioner": "https://github.com/captioner/captioner/xmp/1.0/",
}
_DESCRIPTION, _ALT_TEXT, _SUBJECT = "dc:description", "Iptc4xmpCore:AltTextAccessibility", "dc:subject"
_DIGEST, _CONFIDENCE, _TAGS = "captioner:digest", "captioner:confidence", "captioner:tags"
_PICTURE, _SKIPPED = "captioner:picture", "captioner:skipped"
_LANG, _DEFAULT = "{http://www.w3.org/XML/1998/namespace}lang", "x-default"
_NEW = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="{_RDF}">
  <rdf:Description rdf:about=""/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>""".encode()


@dataclass(frozen=True)
class Held:
    """A caption that a file holds. Where a person removed or emptied it, `text` is empty: they want none."""

    text: str
    ours: bool  # captioner wrote it, and nobody has changed it since
    confidence: float | None = None

    def facts(self) -> dict[str, Any]:
        """Who wrote it, and how sure the captioner was, as rows have it."""
        facts: dict[str, Any] = {"author": "captioner" if self.ours else "person"}
        return facts if self.confidence is None else {**facts, "confidence": self.confidence}

    def stays(self, overwrite: bool, overwrite_edited: bool) -> bool:
        """Whether it is kept by a run that may overwrite our captions, or also those of people."""
        return not (overwrite_edited or (overwrite and self.ours))


@dataclass(frozen=True)
class Entry:
    """A caption to write; with an empty `text` only the tags.

    `language` is a tag such as "en". `maker` is the name of the program, written where no other stands. What a person
    wrote (`by_person`) is written without a digest, and an empty text, too: they want no caption. `picture` is the
    digest of the picture, where it should be kept; `skipped` says why there is no caption, which does not mean none.
    """

    text: str
    language: str = ""
    confidence: float | None = None
    tags: tuple[str, ...] | None = ()  # None leaves those that are there
    maker: str = ""
    by_person: bool = False
    picture: str = ""
    skipped: str = ""


def held(packet: bytes | None) -> Held | None:
    """The caption in XMP; None where there is none, nor was. Raises DataError for what is not XMP."""
    if not packet:
        return None
    rdf = _rdf(_parsed(packet))
    description, alt_text = _items(rdf, _DESCRIPTION), _items(rdf, _ALT_TEXT)
    digest = _value(rdf, _DIGEST)
    if description is None and (digest or alt_text is None):
        return Held("", False) if digest else None
    shown = description if description is not None else alt_text or []
    texts = [text for _, text in (*(description or ()), *(alt_text or ()))]
    if description and all(_digest(text) == digest for text in texts):
        return Held(texts[0].strip(), True, _number(_value(rdf, _CONFIDENCE)))
    ordered = sorted(shown, key=lambda item: item[0] != _DEFAULT)
    return Held(ordered[0][1].strip() if ordered else "", False)


def noted(packet: bytes | None, what: str) -> str:
    """The `picture` or what was `skipped` of the entry that was written; empty if there was none. Raises DataError."""
    return _value(_rdf(_parsed(packet)), f"captioner:{what}") if packet else ""


def merged(packet: bytes | None, entry: Entry) -> bytes:
    """The XMP with this caption in it, in place of the one that is there. Raises DataError for what is not XMP."""
    tree = _parsed(packet or _NEW)
    rdf = _rdf(tree)
    before = _value(rdf, _DIGEST)
    if entry.text or entry.by_person:
        kept = _others(rdf, before) if entry.by_person else set()
        for name in (_DESCRIPTION, _ALT_TEXT):
            _set_texts(rdf, name, entry, before, kept if name == _ALT_TEXT else ())
        _set_value(rdf, _DIGEST, "" if entry.by_person else _digest(entry.text))
        _set_value(rdf, _CONFIDENCE, "" if entry.confidence is None else f"{entry.confidence:.4f}")
    _set_value(rdf, _SKIPPED, entry.skipped)
    if entry.picture:
        _set_value(rdf, _PICTURE, entry.picture)
    if not entry.by_person and entry.tags is not None:  # who corrects a caption does not ask for other keywords
        _set_tags(rdf, entry.tags)
    if entry.maker and not _value(rdf, "xmp:CreatorTool"):
        _set_value(rdf, "xmp:CreatorTool", entry.maker)
    declared = (packet or b"").lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<?xml ")
    root = tree.getroot()
    around = [*reversed(list(root.itersiblings(preceding=True))), root, *root.itersiblings()]
    lines = [etree.tostring(node, encoding="UTF-8", xml_declaration=False, with_tail=False) for node in around]
    return b"\n".join([b'<?xml version="1.0" encoding="UTF-8"?>'] * declared + lines) + b"\n"


def _parsed(packet: bytes) -> Element:
    # Entities could make gigabytes of a few lines, or fetch files. XMP has none, so a document type is refused, also
    # in UTF-16.
    if b"<!doctype" in packet.replace(b"\0", b"").lower():
        raise DataError("not XMP: it has a document type, which could be harmful")
    if not packet.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        packet = packet.strip(b"\0 \r\n\t")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, strip_cdata=False)
    try:
        return etree.fromstring(packet, parser).getroottree()
    except etree.XMLSyntaxError as error:
        raise DataError(f"not XMP ({error.msg})") from error


def _rdf(tree: Element) -> Element:
    rdf = next(tree.iter(_tag("rdf:RDF")), None)
    if rdf is None:
        raise DataError("not XMP: there is no rdf:RDF in it")
    return rdf


def _tag(name: str) -> str:
    prefix, _, local = name.partition(":")
    return f"{{{_NAMESPACES[prefix]}}}{local}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _text(element: Element) -> str:
    return str(element.xpath("string()"))


def _find(rdf: Element, name: str) -> tuple[Element | None, Element | None]:
    """The element of a property, and the node that has it as an attribute, which RDF allows as well."""
    tag = _tag(name)
    return rdf.find(f"*/{tag}"), next((node for node in rdf.iterchildren("*") if tag in node.attrib), None)


def _items(rdf: Element, name: str) -> list[tuple[str, str]] | None:
    """The texts of a property with their languages; None where there is no such property."""
    element, node = _find(rdf, name)
    if element is None:
        return None if node is None else [("", node.get(_tag(name)))]
    items = _inside(element)
    found = [element] if items is None else items.findall(_tag("rdf:li"))
    return [(item.get(_LANG, ""), _text(item)) for item in found]


def _inside(element: Element) -> Element | None:
    """The list inside a property, if it has one. It may also hold comments."""
    return next(element.iterchildren("*"), None)


def _value(rdf: Element, name: str) -> str:
    return next((text.strip() for _, text in _items(rdf, name) or ()), "")


def _add(rdf: Element, name: str) -> Element:
    """A new property in the first node of the RDF."""
    node = next(rdf.iterchildren("*"), None)
    if node is None:
        node = etree.SubElement(rdf, _tag("rdf:Description"), {_tag("rdf:about"): ""})
    prefix = name.partition(":")[0]
    last = node[-1] if len(node) else None
    new = etree.SubElement(node, _tag(name), nsmap={prefix: _NAMESPACES[prefix]})
    if last is None:
        depth = len(list(node.iterancestors()))
        node.text, new.tail = "\n" + " " * (depth + 1), "\n" + " " * depth
    else:
        new.tail, last.tail = last.tail, node.text
    return new


def _set_value(rdf: Element, name: str, value: str) -> None:
    """Set a simple property. With an empty value it is removed."""
    element, node = _find(rdf, name)
    if node is not None:
        del node.attrib[_tag(name)]
    if value:
        element = _add(rdf, name) if element is None else element
        element.text = value
    elif element is not None:
        element.getparent().remove(element)


def _list(rdf: Element, name: str, kind: str) -> Element:
    """The list of a property. One that is no list becomes one with the same text."""
    texts = _items(rdf, name)
    element, node = _find(rdf, name)
    if element is None:
        element = _add(rdf, name)
    if node is not None:
        del node.attrib[_tag(name)]
    found = _inside(element)
    if found is None:
        element.clear(keep_tail=True)
        found = etree.SubElement(element, _tag(kind))
        for _, text in texts or ():
            _append(found, text)
    return found


def _append(items: Element, text: str) -> Element:
    item = etree.SubElement(items, _tag("rdf:li"))
    item.text = text
    return item


def _tidy(items: Element) -> None:
    etree.indent(items.getparent(), " ", level=len(list(items.iterancestors())) - 1)


def _others(rdf: Element, before: str) -> set[str]:
    """The alternative texts that a person wrote beside a description, which is what they see and correct."""
    description = {text for _, text in _items(rdf, _DESCRIPTION) or ()}
    texts = {text for _, text in _items(rdf, _ALT_TEXT) or () if text and _digest(text) != before}
    return texts - description if description else set()


def _set_texts(rdf: Element, name: str, entry: Entry, before: str, kept: Container[str]) -> None:
    """Set the text of the default language and of the caption's. Those of others stay, unless they are ours."""
    items = _list(rdf, name, "rdf:Alt")
    languages = list(dict.fromkeys(filter(None, (_DEFAULT, entry.language))))
    for item in items.findall(_tag("rdf:li")):
        language, text = item.get(_LANG, _DEFAULT), _text(item)
        if text in kept:
            languages = [name for name in languages if name != language]
        elif language in languages or _digest(text) == before:
            items.remove(item)
    for place, language in enumerate(languages):
        item = _append(items, entry.text)
        item.set(_LANG, language)
        items.insert(place, item)
    _tidy(items)


def _set_tags(rdf: Element, tags: Iterable[str]) -> None:
    """Add tags to the keywords, but none that a person removed. Of those there, only ours may go."""
    written = {text for _, text in _items(rdf, _TAGS) or ()}
    there = {text for _, text in _items(rdf, _SUBJECT) or ()}
    wanted, removed = [tag for tag in tags if tag not in written - there], written - there
    stale, new = (written & there) - set(wanted), [tag for tag in wanted if tag not in there]
    if not (stale or new):
        return
    keywords = _list(rdf, _SUBJECT, "rdf:Bag")
    for item in keywords.findall(_tag("rdf:li")):
        if _text(item) in stale:
            keywords.remove(item)
    for tag in new:
        _append(keywords, tag)
    ours = _list(rdf, _TAGS, "rdf:Bag")
    for item in ours.findall(_tag("rdf:li")):
        ours.remove(item)
    for tag in sorted((written & set(wanted)) | set(new) | removed):
        _append(ours, tag)
    for items in (keywords, ours):
        _tidy(items)
