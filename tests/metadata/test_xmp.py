"""Captions in XMP: what is ours, what a person wrote, and that all else stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
from lxml import etree

from captioner.errors import DataError
from captioner.metadata.xmp import Entry, Held, held, merged
from metadata.programs import SIDECARS

OURS = Entry("A dog runs", "en", 0.75, ("dog", "grass"), "captioner 0.1.0")
_BEFORE = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
_NAMES = 'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:c="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"'
_OURS = ("/elements/1.1/}description", "AltTextAccessibility", "/captioner/xmp/1.0/}")


def sidecar(inside: str, attributes: str = "") -> bytes:
    """XMP with this inside its only node."""
    node = f'<rdf:Description rdf:about="" {_NAMES} {attributes}>{inside}</rdf:Description>'
    return f"{_BEFORE}{node}</rdf:RDF></x:xmpmeta>".encode()


def description(*texts: str, name: str = "dc:description") -> str:
    """A property with texts in the default language and in German."""
    items = zip(("x-default", "de"), texts, strict=False)
    inside = "".join(f'<rdf:li xml:lang="{language}">{text}</rdf:li>' for language, text in items)
    return f"<{name}><rdf:Alt>{inside}</rdf:Alt></{name}>"


def facts(xmp: bytes) -> list[Any]:
    """All that XMP says besides captions, in order: elements, attributes, texts, comments and instructions."""
    tree = etree.ElementTree(etree.fromstring(xmp))
    for element in list(tree.iter("*")):
        if any(part in element.tag for part in _OURS):
            element.getparent().remove(element)
    found: list[Any] = []
    for node in (*tree.xpath("/comment() | /processing-instruction()"), *tree.iter()):
        text = (node.text or "").strip() if len(node) else node.text
        found.append((node.tag, dict(node.attrib) if isinstance(node.tag, str) else str(node), text, node.prefix))
    return found


@pytest.mark.parametrize("program", SIDECARS)
def test_all_else_in_the_sidecars_of_three_programs_stays(program: str) -> None:
    before = SIDECARS[program].encode()
    assert held(before) is None
    entry = Entry("A dog runs", "en", 0.75)
    after = merged(merged(before, Entry("A cat <sits> & sleeps", "de", 0.5)), entry)
    assert held(after) == Held("A dog runs", True, 0.75)
    assert facts(after) == facts(before)
    assert after.startswith(before[:20])  # the wrapper or the declaration, and its place
    assert merged(after, entry) == after


def test_a_new_sidecar_has_all_that_is_known() -> None:
    tree = etree.fromstring(merged(None, OURS))
    texts = {element.tag.rpartition("}")[2]: element for element in tree.iter("*")}
    language = "{http://www.w3.org/XML/1998/namespace}lang"
    for name in ("description", "AltTextAccessibility"):
        items = [(item.get(language), item.text) for item in texts[name][0]]
        assert items == [("x-default", "A dog runs"), ("en", "A dog runs")]
    assert [item.text for item in texts["subject"][0]] == ["dog", "grass"]
    assert (texts["CreatorTool"].text, texts["confidence"].text) == ("captioner 0.1.0", "0.7500")
    without = merged(None, Entry("A dog runs"))
    assert not any(name in without for name in (b"confidence", b"subject", b"CreatorTool", b'lang="en"'))


def test_the_maker_is_named_only_where_no_other_is() -> None:
    for program in ("digikam", "lightroom"):
        assert b"captioner 0.1.0" not in merged(SIDECARS[program].encode(), OURS)
    assert b"captioner 0.1.0" in merged(SIDECARS["darktable"].encode(), OURS)


@pytest.mark.parametrize(
    ("inside", "attributes", "text"),
    [
        (description("My dog"), "", "My dog"),
        (description("My dog", "Mein Hund"), "", "My dog"),
        ('<dc:description><rdf:Alt><rdf:li xml:lang="de">Hund</rdf:li></rdf:Alt></dc:description>', "", "Hund"),
        ("<dc:description>My <!-- old --> dog</dc:description>", "", "My  dog"),
        ("<dc:description><!-- mine --><rdf:Alt><rdf:li>Rex</rdf:li></rdf:Alt></dc:description>", "", "Rex"),
        ("", 'dc:description="My dog"', "My dog"),
        (description("My dog", name="c:AltTextAccessibility"), "", "My dog"),
        (description(""), "", ""),
        ("<dc:description><rdf:Alt/></dc:description>", "", ""),
        ("<dc:description/>", "", ""),
    ],
)
def test_what_a_person_wrote_is_theirs_in_each_form_of_rdf(inside: str, attributes: str, text: str) -> None:
    before = sidecar(inside, attributes)
    assert held(before) == Held(text, False)
    after = merged(before, OURS)
    german = "Hund" in inside  # it stays, so what is there is still theirs
    assert held(after) == (Held("A dog runs", False) if german else Held("A dog runs", True, 0.75))
    assert after.count(b"description") == 2
    assert (b"Mein Hund" in after) == ("Mein Hund" in inside)


@pytest.mark.parametrize(
    ("old", "new", "text", "still_ours"),
    [
        (b">A dog runs<", b">My dog runs<", "My dog runs", False),
        (b'x-default">A dog runs<', b'x-default"><', "", False),
        (b'"en">A dog runs<', b'"en">My dog<', "A dog runs", False),
        (b'<rdf:li xml:lang="en">A dog runs</rdf:li>', b"", "A dog runs", True),  # as programs of one language do
    ],
)
def test_what_a_person_changed_is_theirs(old: bytes, new: bytes, text: str, still_ours: bool) -> None:
    ours = merged(None, OURS)
    assert held(ours) == Held("A dog runs", True, 0.75)
    assert held(ours.replace(old, new)) == Held(text, still_ours, 0.75 if still_ours else None)


def test_a_caption_that_was_removed_means_none() -> None:
    tree = etree.fromstring(merged(None, OURS))
    gone = [element for element in tree.iter("*") if element.tag.endswith("}description")]
    gone[0].getparent().remove(gone[0])
    assert held(etree.tostring(tree)) == Held("", False)
    alt_text = next(element for element in tree.iter("*") if element.tag.endswith("AltTextAccessibility"))
    alt_text.getparent().remove(alt_text)
    assert held(etree.tostring(tree)) == Held("", False)


def test_a_program_that_drops_the_alternative_text_changes_no_caption() -> None:
    tree = etree.fromstring(merged(None, OURS))
    alt_text = next(element for element in tree.iter("*") if element.tag.endswith("AltTextAccessibility"))
    alt_text.getparent().remove(alt_text)
    assert held(etree.tostring(tree)) == Held("A dog runs", True, 0.75)


def test_a_caption_in_another_language_takes_the_place_of_ours() -> None:
    german = merged(merged(None, OURS), Entry("Ein Hund rennt", "de"))
    assert held(german) == Held("Ein Hund rennt", True)
    assert b"A dog" not in german
    assert b"confidence" not in german


def test_tags_that_a_person_removed_stay_away() -> None:
    first = merged(sidecar("<dc:subject><rdf:Bag><rdf:li>Rex</rdf:li></rdf:Bag></dc:subject>"), OURS)
    changed = first.replace(b"<rdf:li>grass</rdf:li>", b"", 1)  # the keyword, not what we remember of it
    again = merged(merged(changed, Entry("A dog", tags=("grass", "snow"))), Entry("A dog", tags=("grass", "snow")))
    subjects = etree.fromstring(again).find(".//{http://purl.org/dc/elements/1.1/}subject")
    assert [item.text for item in subjects.iter("{*}li")] == ["Rex", "snow"]
    kept = merged(sidecar("", 'dc:subject="Rex"'), Entry("A dog", tags=("dog",)))
    assert [item.text for item in etree.fromstring(kept).iter("{*}li")][2:4] == ["Rex", "dog"]


def test_tags_alone_leave_captions_alone() -> None:
    before = sidecar(description("My dog"))
    assert held(merged(before, Entry("", tags=("dog",)))) == Held("My dog", False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_encoding_is_read(encoding: str) -> None:
    before = sidecar(description("Löwe 水")).decode().encode(encoding)
    assert held(before) == Held("Löwe 水", False)
    assert held(merged(before, Entry("A lion"))) == Held("A lion", True)


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (b"not xml", "not XMP"),
        (b"<html/>", "no rdf:RDF"),
        (b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF", "not XMP"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "document type"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'.encode("utf-16"), "document type"),
        (b'<!doctype a SYSTEM "/etc/passwd"><a/>', "document type"),
    ],
)
def test_what_is_not_xmp_or_could_do_harm_is_refused(packet: bytes, why: str) -> None:
    for call in (held, lambda content: merged(content, OURS)):
        with pytest.raises(DataError, match=why):
            call(packet)


def test_a_correction_keeps_our_keywords() -> None:
    corrected = merged(merged(None, OURS), Entry("My dog", by_person=True))
    assert held(corrected) == Held("My dog", False)
    assert all(f"<rdf:li>{tag}</rdf:li>".encode() in corrected for tag in OURS.tags)


def test_a_correction_leaves_the_alternative_text_that_a_person_wrote_beside_our_caption() -> None:
    start, end = merged(None, OURS).split(b"<Iptc4xmpCore:", 1)
    before = start + b"<Iptc4xmpCore:" + end.replace(b"A dog runs", b"For the blind", 1)
    assert held(before) == Held("A dog runs", False)
    corrected = merged(before, Entry("My dog", by_person=True))
    assert held(corrected) == Held("My dog", False)
    assert b"For the blind" in corrected
    assert b"A dog runs" not in corrected
    assert b"For the blind" not in merged(before, OURS)
