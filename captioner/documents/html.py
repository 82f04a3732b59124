"""The `<img>` tags of HTML and XHTML, with the place of each in the text.

It splits text into tags as the HTML standard's tokenizer does. The parsers that are at hand do not serve here: lxml and
html5lib do not keep the places of tags, html5lib takes seconds for a site, and which text `html.parser` takes for tags
depends on the release of Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape, unescape

_SPACE = "[ \t\n\r\f]"
_NAME = r"[^ \t\n\r\f/>][^ \t\n\r\f/>=]*"
_VALUE = r""""[^"]*"|'[^']*'|(?!["'>])[^ \t\n\r\f>]+(?=[ \t\n\r\f>])|(?=>)"""
# Each alternative says what must follow it, so that there is one way to read a text, and no time is lost on others.
_ATTRIBUTE = rf"{_NAME}(?:{_SPACE}*={_SPACE}*(?:{_VALUE})|(?!{_SPACE}*=)(?=[ \t\n\r\f/>]))"
_TAG = re.compile(rf"<(/?[a-zA-Z][^ \t\n\r\f/>]*)((?:[ \t\n\r\f/]*{_ATTRIBUTE})*)[ \t\n\r\f/]*>")
_SPLIT = re.compile(rf"({_NAME})(?:{_SPACE}*={_SPACE}*({_VALUE}))?")
_IMG = re.compile(r"<img(?=[ \t\n\r\f/>])", re.IGNORECASE)
_NEXT = re.compile(r"<(?=[a-zA-Z!?/])")
_COMMENT_END = {False: re.compile("--!?>"), True: re.compile("-->")}  # of HTML, of XML
# Elements whose content is text up to their end tag. In <noscript> browsers without scripts see tags.
_TEXT = frozenset({"style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"})
# In Markdown, some characters have a meaning even in a tag or behind a backslash.
_REFERENCES = str.maketrans({"`": "&#96;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "|": "&#124;"})
_SCRIPT = re.compile(r"<!(?=--)|-->|<(/?)script(?=[ \t\n\r\f/>])", re.IGNORECASE)


@dataclass(frozen=True)
class Image:
    """A picture in a document, where `text[place]` is the alternative text that it lacks: nothing, or white space."""

    start: int  # where its tag begins, or its ![
    place: slice
    attributes: dict[str, str]  # those of the tag, decoded; in Markdown "src" and "title"
    tag: str  # as it is written
    markdown: bool = False

    def alt(self, words: str) -> str:
        """What to write into `place`, so that the alternative text reads as these words."""
        words = " ".join(words.split())
        if self.markdown:
            return re.sub(r"[\\*_\[\]&{}~$]", r"\\\g<0>", words).translate(_REFERENCES)
        return f' alt="{escape(words, quote=False).translate(_REFERENCES)}"'


def may_lack(text: str) -> bool:
    """Whether there may be an `<img>` tag without `alt`: a quick look, which also takes those in comments for tags."""
    for found in _IMG.finditer(text):
        tag = _TAG.match(text, found.start())
        if not tag or _lacks(_attributes(tag)) or _IMG.search(tag[0], 1):  # the last: inside, what may be a tag
            return True
    return False


def images(text: str, xml: bool = False) -> Iterator[Image]:
    """The `<img>` tags without the attribute `alt`, in their order. `xml`: the text is XHTML, with its rules."""
    if not may_lack(text):
        return
    position = 0
    while found := _NEXT.search(text, position):
        start = found.start()
        tag = _TAG.match(text, start)
        if not tag:
            position = _declaration_end(text, start, xml)
            continue
        name, position = tag[1].lower(), tag.end()
        if name == "img" and _lacks(attributes := _attributes(tag)):
            after = start + len("<img")
            yield Image(start, slice(after, after), attributes, tag[0])
        elif not xml and name == "script":
            position = _script_end(text, position)
        elif not xml and name in _TEXT:
            end = re.compile(rf"</{name}(?=[ \t\n\r\f/>])", re.IGNORECASE).search(text, position)
            position = end.start() if end else len(text)
        elif not xml and name == "plaintext":
            return


def _lacks(attributes: dict[str, str]) -> bool:
    """Whether nothing names the picture: neither `alt`, nor what Vue or Angular make into it, nor an ARIA label."""
    labelled = attributes.get("aria-label", "").strip() or attributes.get("aria-labelledby", "").strip()
    return not labelled and not any(re.fullmatch(r"(.*[:.\[])?alt\]?", name) for name in attributes)


def _attributes(tag: re.Match[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in _SPLIT.findall(tag.string, tag.start(2), tag.end(2) + 1):
        value = value[1:-1] if value[:1] in ('"', "'") else value
        found.setdefault(name.lower(), unescape(value))  # of two that have the same name, the first counts
    return found


def _declaration_end(text: str, start: int, xml: bool) -> int:
    """Where what begins with "<" at `start`, and is no tag, ends: a comment, a declaration, a stray "<"."""
    if text.startswith("<!--", start):
        if not xml and (short := re.compile("<!---?>").match(text, start)):
            return short.end()
        ending, after = _COMMENT_END[xml], start + 4
    elif xml and text.startswith("<![CDATA[", start):
        ending, after = re.compile("]]>"), start + 9
    elif xml and text.startswith("<?", start):
        ending, after = re.compile(r"\?>"), start + 2
    elif text[start + 1] in "!?" or re.compile("</[^a-zA-Z]").match(text, start):
        ending, after = re.compile(">"), start + 2
    else:
        return len(text)  # a tag that nothing ends
    end = ending.search(text, after)
    return end.end() if end else len(text)


def _script_end(text: str, start: int) -> int:
    """Where the content of a script ends. In `<!--`, as old pages have it, another script may begin and end."""
    in_comment = in_script = False
    for part in _SCRIPT.finditer(text, start):
        if part[0] in ("<!", "-->"):
            in_comment, in_script = part[0] == "<!", in_script and part[0] == "<!"
        elif part[1] and not in_script:
            return part.start()
        else:
            in_script = in_comment and not part[1]
    return len(text)
