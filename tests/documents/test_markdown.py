"""The pictures of Markdown that lack alternative text, at their exact places."""

from __future__ import annotations

import random

import pytest
from markdown_it import MarkdownIt

from captioner.documents.markdown import images

PARTS = [
    *(
        "![](a.png)",
        "![ ](b.png)",
        "![x](c.png)",
        "![][r]",
        "![\n](d.png)",
        "[![](e.png)](f)",
        "`",
        "``",
        "*",
        "**",
        "\n",
    ),
    *(
        "\n\n",
        "\r\n",
        "\r",
        "> ",
        "- ",
        "1. ",
        "    ",
        "\t",
        "# ",
        " #",
        "```\n",
        "~~~\n",
        "<img src=g.png>",
        "<div>\n",
    ),
    *('<img src="h.png"\n alt>', "</div>\n", "<!-- ", "-->", "\n[r]: z.png\n", "| ", "|---|", "\\", "a", "b ", "===\n"),
    *("---\n", "\x0c", "\u2028", "\0", "é", '<a href="x">', "</a>", "](", "[", "]", "!", "&nbsp;", "![\n> ](q.png)"),
]


def sources(text: str) -> list[str]:
    return [image.attributes["src"] for image in images(text)]


def filled(text: str, words: str) -> str:
    for image in reversed(list(images(text))):
        text = text[: image.place.start] + image.alt(words) + text[image.place.stop :]
    return text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("![](a.png) ![b](b.png) ![ ](<c d.png>)", ["a.png", "c d.png"]),
        ("![][ref] ![ref][] ![ref]\n\n[ref]: a.png", ["a.png"]),
        ("[![](a.png)](b)\n\n| x | y |\n|---|---|\n| ![](c.png) | **![](d.png)** |", ["a.png", "c.png", "d.png"]),
        ("`![](a.png)`\n\n    ![](b.png)\n\n```\n![](c.png)\n```\n\n\\![](d.png)", []),
        ("<!-- ![](a.png) <img src=b> -->\n\ntext <img src=c> `<img src=d>`", ["c"]),
        ("<table>\n  <tr><td><img src=a></td></tr>\n</table>\n\n> <img\n> src=b>", ["a", "b"]),
        ("---\ntitle: x\nteaser: ![](a.png)\n---\n![](b.png)", ["b.png"]),
        ("---\r\ntitle: x\r\n---\r\n![](b.png)", ["b.png"]),
        ("![&nbsp;](a.png) ![![](b.png)](c.png)", []),
        ("import x\n\n<Image src={a} />\n<img src={b} alt={c} />\n{/* */}\n\n![](d.png)", ["d.png"]),
        ("![](图 .png)\n![](图.png)", ["图.png"]),
    ],
)
def test_what_counts_as_a_picture_without_alternative_text(text: str, expected: list[str]) -> None:
    assert sources(text) == expected


def test_on_any_text_the_same_pictures_as_the_parser_at_places_that_can_be_filled() -> None:
    """The parser says which pictures there are, but not where."""
    rng, parser, seen, words = random.Random(0), MarkdownIt("commonmark"), 0, r"A [dog] \ *by* `a` <b> & \| _c_ ]("
    for _ in range(4000):
        text = "".join(rng.choice(PARTS) for _ in range(rng.randint(2, 25)))
        if text.startswith("---"):
            continue  # front matter, of which the parser does not know
        tokens = [token for block in parser.parse(text) for token in block.children or ()]
        expected = [t.attrs["src"] for t in tokens if t.type == "image" and not t.content.strip()]
        found = list(images(text))
        assert [image.attributes["src"] for image in found if image.markdown] == expected, text
        assert [image.start for image in found] == sorted(image.start for image in found)
        for image in found:
            assert text.startswith("![" if image.markdown else "<img", image.start), text
        after = filled(text, words)
        assert not sources(after), text
        blocks = [token for block in parser.parse(after) for token in block.children or ()]
        alts = ["".join(part.content for part in t.children).strip() for t in blocks if t.type == "image"]
        assert alts.count(words) == len(expected), text
        seen += len(expected)
    assert seen > 500


def test_white_space_in_the_brackets_is_replaced() -> None:
    assert filled("> ![  ](a.png) ![\n> ](b.png)", "A dog") == "> ![A dog](a.png) ![A dog\n> ](b.png)"
