"""What has to be known of a language: its function words, and its words for people.

A caption without its function words is what it says of the picture. Of a language that is not listed here, all words
count.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, eq=False)
class Language:
    """One language. `neutral` maps words that tell the sex of people to those that do not, of which one fits."""

    name: str
    function_words: frozenset[str]
    may_show: str  # before a caption that is not sure
    neutral: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))


def _language(name: str, may_show: str, function_words: str, neutral: str = "") -> Language:
    groups = (group.split(": ") for group in neutral.split("; ") if group)
    pairs = {word: tuple(to.split()) for to, words in groups for word in words.split()}
    return Language(name, frozenset(function_words.split()), may_show, MappingProxyType(pairs))


ENGLISH = _language(
    "English",
    "May show: ",
    "a an the of in on at to with by for from and or but is are was were be been being am it its this that these those "
    "there he she they his her their hers him them himself herself itself themselves as into onto over under up down "
    "out off near next behind front beside between through across around while who which what where when has have had "
    "having do does doing not no some one two three four five six several many other others another each both very "
    "just also all more most than then so if above below along against inside outside about after before during within "
    "without towards toward back top side 's n't",
    "person: man woman guy lady gentleman male female; people: men women guys ladies; child: boy girl; "
    "children: boys girls; they: he she; their: his her; them: him; themselves: himself herself",
)
GERMAN = _language(
    "German",
    "Zeigt vielleicht: ",
    "ein eine einer eines einem einen der die das des dem den und oder aber ist sind war waren wird werden wurde hat "
    "haben in im auf an am zu zum zur mit bei beim von vom für aus über unter vor hinter neben zwischen durch um gegen "
    "ohne nach seit während als wie es er sie ihr ihre ihrem ihren ihrer sein seine seinem seinen seiner sich dabei "
    "dass der welche welcher nicht kein keine zwei drei vier fünf mehrere viele einige andere anderen anderer alle "
    "beide sehr auch noch nur dann so ab hoch runter hinunter herum entlang davor dahinter darauf daran",
)
CHINESE = _language(
    "Chinese",
    "可能是：",
    "的 了 着 在 是 和 与 有 一 二 两 三 四 五 几 个 只 条 名 位 群 些 片 把 件 张 块 座 辆 里 上 下 中 前 后 旁 边 外 "
    "内 面 从 到 向 往 对 给 被 让 用 之 其 他 她 它 们 这 那 不 没 也 都 正 又 就 很 地 得 过 去 来 起 着",
    "人 孩: 男 女; 其: 他 她",
)
_LANGUAGES = (ENGLISH, GERMAN, CHINESE)
_OTHER = Language("", frozenset(), "? ")


def language_of(words: Collection[str]) -> Language:
    """The language to which a vocabulary belongs: that of which most function words are in it, if many are."""
    known = set(words)
    share = {each: len(each.function_words & known) / len(each.function_words) for each in _LANGUAGES}
    best = max(_LANGUAGES, key=share.__getitem__)
    return best if share[best] >= 0.3 else _OTHER
