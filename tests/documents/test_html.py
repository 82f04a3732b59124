"""The <img> tags of HTML are those that browsers see."""

from __future__ import annotations

import random
import time
from html.parser import HTMLParser

import pytest

from captioner.documents.html import images

PARTS = [
    *(
        "<",
        "<img",
        " src=a.png",
        ' src="b c.png"',
        " src='d>'",
        " alt",
        ' alt=""',
        " ALT=x",
        ">",
        "/>",
        "<IMG",
        "<img/src=x>",
    ),
    *("<!--", "-->", "--!>", "<!-->", "<!--->", "<script>", "</script>", "<SCRIPT ", "<title>", "</title>", "</title "),
    *("<textarea>", "</textarea>", '<a title="<img>">', "<p title=it's>", "<p don't>", '"', "'", "=", " ", "\n", "\t"),
    *("<![CDATA[", "]]>", "<?xml ", "?>", "</", "</p>", "<!DOCTYPE html>", "<style>", "</style>", "/", "text", "&amp;"),
    *(
        "<noscript>",
        "</noscript>",
        "<template>",
        "</template>",
        "<img src=x/>",
        "= y",
        "<xmp>",
        "</xmp>",
        "--",
        "<imgx>",
    ),
    *("<img src = z >", "<br/>", "&", "<iframe>", "</iframe>", "<plaintext>"),
]


def sources(text: str, xml: bool = False) -> list[str]:
    return [image.attributes.get("src", "") for image in images(text, xml)]


def test_the_same_tags_as_html5lib_finds() -> None:
    html5lib = pytest.importorskip("html5lib")
    rng, seen = random.Random(0), 0
    for _ in range(1500):
        text = "".join(rng.choice(PARTS) for _ in range(rng.randint(2, 25)))
        tree = html5lib.parse(text, namespaceHTMLElements=False)
        expected = sorted(img.get("src", "") for img in tree.iter("img") if "alt" not in img.attrib)
        assert sorted(sources(text)) == expected, text
        seen += bool(expected)
    assert seen > 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<IMG SRC=a.png>", ["a.png"]),
        ("<img\n  src='a b.png'\r\n/>", ["a b.png"]),
        ('<img src="a.png?x=1&amp;y=2">', ["a.png?x=1&y=2"]),
        ('<img src=a alt><img src=b alt=""><img src=c ALT="x">', []),
        ('<img src=a :alt="x"><img src=b v-bind:alt="x"><img src=c [attr.alt]="x"><img src=d [alt]="x">', []),
        ('<img src=a aria-label="A dog"><img src=b aria-label=" ">', ["b"]),
        ("<img data-alt=x src=a><img title='alt' src=b>", ["a", "b"]),
        ("<picture><source srcset=a.webp><img src=b.png></picture>", ["b.png"]),
        ("<template><img src=a></template><noscript><img src=b></noscript>", ["a", "b"]),
        ("<!-- <img src=a> --><img src=b>", ["b"]),
        ("<script>'<img src=a>'</script><style><img src=b></style><textarea><img src=c></textarea><img src=d>", ["d"]),
        ("<script><!-- <script></script><img src=a> --></script><img src=b>", ["b"]),
        ("<div title='<img src=a>'><img src=b>", ["b"]),
        ("<image src=a><imgx src=b>", []),
        ("<img src='a><p>", []),
    ],
)
def test_what_counts_as_a_picture_without_alternative_text(text: str, expected: list[str]) -> None:
    assert sources(text) == expected


def test_xhtml_has_its_own_rules() -> None:
    text = "<script src='x'/><img src='a'/><title/><![CDATA[<img src='b'>]]><?php <img src='c'> ?><img src='d'/>"
    assert sources(text, xml=True) == ["a", "d"]
    assert sources(text) == []  # browsers take the rest of an HTML page for the script


@pytest.mark.parametrize("words", ['a "red" dog & <cat>', "it's 写真", "two\n lines", "&amp;"])
def test_the_words_come_back_from_the_attribute(words: str) -> None:
    [image] = images("<p><img src=a.png/>")
    text = "<p><img src=a.png/>"
    text = text[: image.place.start] + image.alt(words) + text[image.place.stop :]
    found: list[tuple[str, str | None]] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.extend(attributes)  # type: ignore[method-assign]
    parser.feed(text)
    assert dict(found) == {"alt": " ".join(words.split()), "src": "a.png/"}


@pytest.mark.parametrize(
    "part",
    ["<img ", "<img alt ", "<img b='\"", "<img a= ", "<img><!--", "<img><script><!--<script>", "<img src=/", "<a "],
)
def test_no_text_takes_long(part: str) -> None:
    began = time.process_time()
    for text in (part * 20_000, part * 20_000 + ">"):
        for xml in (False, True):
            list(images(text, xml))
    assert time.process_time() - began < 3
