"""Vocabulary: one way to cut captions into words, and words to ids and back."""

from __future__ import annotations

import random
import sys
import unicodedata

import pytest

from captioner import vocab
from captioner.vocab import (
    END,
    PAD,
    SPECIAL_TOKENS,
    START,
    UNK,
    Vocabulary,
    fitting_tokens,
    join_tokens,
    tokenise,
)

SENTENCES = [
    ("A dog  RUNS .", "a dog runs"),
    ('Two dogs, one (brown) cat; a "ball"!', "two dogs one brown cat a ball"),
    ("a man in a t-shirt - outside", "a man in a t-shirt outside"),
    ("the U.S. flag at 3.5 m & an M&M", "the u.s flag at 3.5 m an m&m"),
    ("the man's hat", "the man 's hat"),
    ("the man 's hat", "the man 's hat"),
    ("the man’s hat", "the man 's hat"),
    (
        "They're here, I'm not; he'd say we've won, she'll see",
        "they 're here i 'm not he 'd say we 've won she 'll see",
    ),
    ("the dogs' 'best' rock'n'roll at 5 o'clock", "the dogs best rock'n'roll at 5 o'clock"),
    ("I don't, can't, couldn’t've", "i do n't ca n't could n't 've"),
    ("<unk> <start>a<end> <pad>", "unk start a end pad"),
    ("ＡＢＣ ﬁsh e\u0301te\u0301 \u00a0no-break", "abc fish été no-break"),
    ("Ein Mädchen läßt Бабочку fliegen", "ein mädchen läßt бабочку fliegen"),
    # Vowel signs are combining marks, and joiners stand inside words.
    ("हिन्दी में लड़का", "हिन्दी में लड़का"),
    ("สวัสดี مُحَمَّد کتاب‌ها", "สวัสดี مُحَمَّد کتاب‌ها"),
    ("a ❤️ … — \u0301 \u200d", "a"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "words"), SENTENCES)
def test_a_caption_is_cut_into_lower_case_words(text: str, words: str) -> None:
    assert " ".join(tokenise(text)) == unicodedata.normalize("NFKC", words)


@pytest.mark.parametrize(("text", "words"), SENTENCES)
def test_words_joined_to_a_sentence_are_the_same_words_again(text: str, words: str) -> None:
    tokens = tokenise(text)
    assert tokenise(join_tokens(tokens)) == tokens


CHARACTERS = [
    ("一个 穿着泳装的女人，躺在海水里。", "一|个|穿|着|泳|装|的|女|人|躺|在|海|水|里", "一个穿着泳装的女人躺在海水里"),
    ("他穿Ｔ恤 在 Nike 店", "他|穿|t|恤|在|n|i|k|e|店", "他穿t恤在nike店"),
    ("สวัสดี", "ส|วั|ส|ดี", "สวัสดี"),
    ("Two  dogs!", "t|w|o| |d|o|g|s", "Two dogs"),
    ("나는 개", "나|는| |개", "나는 개"),
    ("", "", ""),
]


@pytest.mark.parametrize(("text", "tokens", "joined"), CHARACTERS)
def test_a_caption_is_cut_into_characters_and_joined_again(text: str, tokens: str, joined: str) -> None:
    assert "|".join(tokenise(text, "character")) == tokens
    assert join_tokens(tokenise(text, "character"), "character") == joined
    vocabulary = Vocabulary.build([text], tokens="character")
    assert vocabulary.text(vocabulary.encode(text)) == joined


def test_scripts_without_spaces_ask_for_characters() -> None:
    assert fitting_tokens(["a dog", "一只狗"]) == "word"
    assert fitting_tokens(["一只狗穿着 T 恤", "两只猫"]) == "character"
    assert fitting_tokens(["สวัสดี"]) == "character"
    assert fitting_tokens(["나는 개", "хорошая собака"]) == "word"
    assert fitting_tokens([]) == "word"


def test_a_vocabulary_knows_its_kind_of_tokens() -> None:
    with pytest.raises(ValueError, match="word or character"):
        Vocabulary(SPECIAL_TOKENS, tokens="syllable")


def test_tokens_of_any_text_are_words_that_stay_as_they_are() -> None:
    rng = random.Random(0)
    letters = [c for c in map(chr, range(sys.maxunicode)) if unicodedata.category(c) not in ("Cs", "Co", "Cn")]
    for _ in range(3000):
        parts = [rng.choice(letters), *"aB'’-.&\"<> ", "n't ", "'s "]
        text = "".join(rng.choices(parts, k=rng.randint(1, 12)))
        tokens = tokenise(text)
        assert tokenise(" ".join(tokens)) == tokens, text
        assert all(token and not token.isspace() and token not in SPECIAL_TOKENS for token in tokens), text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("a dog runs", "A dog runs"),
        ("the man 's dog do n't run", "The man's dog don't run"),
        ("t-shirt", "T-shirt"),
        ("'s", "'s"),
        ("", ""),
    ],
)
def test_words_join_to_a_sentence(words: str, sentence: str) -> None:
    assert join_tokens(words.split()) == sentence


def test_build_puts_frequent_words_first_and_equally_frequent_ones_in_alphabetical_order() -> None:
    captions = ["zebra dog cat", "Zebra ant dog", "zebra"]
    assert Vocabulary.build(captions).words == (*SPECIAL_TOKENS, "zebra", "dog", "ant", "cat")
    assert Vocabulary.build(reversed(captions)) == Vocabulary.build(captions)


@pytest.mark.parametrize(("minimum", "kept"), [(1, "a b c"), (2, "a b"), (3, "a"), (4, "")])
def test_build_leaves_out_words_below_the_minimum_count(minimum: int, kept: str) -> None:
    vocabulary = Vocabulary.build(["a a a b", "c b"], minimum_count=minimum)
    assert vocabulary.words[4:] == tuple(kept.split())
    assert len(vocabulary) == 4 + len(kept.split())


def test_encode_and_decode_are_inverse() -> None:
    vocabulary = Vocabulary.build(["the man's dog doesn't run"])
    ids = vocabulary.encode("The man's dog doesn't run.")
    assert [vocabulary.words[i] for i in ids] == ["the", "man", "'s", "dog", "does", "n't", "run"]
    assert vocabulary.decode(ids) == ["the", "man", "'s", "dog", "does", "n't", "run"]
    assert vocabulary.text([START, *ids, END, PAD]) == "The man's dog doesn't run"


def test_words_outside_the_vocabulary_become_unk() -> None:
    vocabulary = Vocabulary.build(["a dog"])
    assert vocabulary.encode("a Wolf dog")[1] == UNK
    assert vocabulary.decode(vocabulary.encode("a wolf")) == ["a", "<unk>"]


def test_special_tokens_in_a_text_are_only_words() -> None:
    assert Vocabulary.build(["a dog"]).encode("<end> <start> <pad>") == [UNK, UNK, UNK]
    vocabulary = Vocabulary.build(["<end> of the <start>"])
    assert len(vocabulary) == 4 + len(["end", "of", "the", "start"])
    assert min(vocabulary.encode("<end> of the <start>")) >= len(SPECIAL_TOKENS)


def test_special_tokens_have_the_ids_that_the_code_uses() -> None:
    assert tuple(Vocabulary(SPECIAL_TOKENS).words[i] for i in (PAD, START, END, UNK)) == SPECIAL_TOKENS


SPELLED = [
    (["ein Hund auf der Wiese", "Zwei Hunde"], {"hund": "Hund", "wiese": "Wiese", "hunde": "Hunde"}),
    (["a dog and a Frisbee", "a red Frisbee"], {"frisbee": "Frisbee"}),
    (["Dog", "Dog runs", "Dog with a dog"], {}),  # the first word has a capital for another reason
    (["A DOG WITH A BALL", "a dog"], {}),
    (["a DVD of a McDonald's"], {"dvd": "DVD", "mcdonald": "McDonald"}),
    (["a Pizza", "a Pizza", "a pizza"], {}),  # two of three are not most
    (["a Pizza"] * 7 + ["a pizza"] * 3, {"pizza": "Pizza"}),
    (["a Pizza", "a PIZZA"], {}),
    (["a t-Shirt", "one ｄｏｇ’s Ball"], {"t-shirt": "t-Shirt", "ball": "Ball"}),
]


@pytest.mark.parametrize(("captions", "spellings"), SPELLED)
def test_words_are_spelled_as_they_mostly_are_inside_captions(captions: list[str], spellings: dict[str, str]) -> None:
    vocabulary = Vocabulary.build(captions)
    assert vocabulary.spellings == spellings
    assert Vocabulary.build(reversed(captions)) == vocabulary
    assert Vocabulary.build(captions, minimum_count=99).spellings == {}
    assert vocabulary.tokenise(captions[0]) == tokenise(captions[0])  # tokens stay in lower case


def test_a_sentence_is_written_with_its_spellings() -> None:
    vocabulary = Vocabulary.build(["ein Hund fängt Toms Frisbee", "der Hund's Ball"])
    ids = vocabulary.encode("EIN HUND'S FRISBEE")
    assert vocabulary.decode(ids) == ["ein", "hund", "'s", "frisbee"]
    assert vocabulary.text(ids) == "Ein Hund's Frisbee"


def test_characters_have_no_spellings() -> None:
    assert Vocabulary.build(["他穿 T 恤"], tokens="character").spellings == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*SPECIAL_TOKENS, "dog", "cat", "dog"), "holds the word 'dog' twice"),
        ((*SPECIAL_TOKENS, "<unk>"), "holds the word '<unk>' twice"),
        (("<start>", "<pad>", "<end>", "<unk>", "dog"), "must begin with <pad> <start> <end> <unk>"),
        (SPECIAL_TOKENS[:3], "must begin with"),
        ((), "must begin with"),
    ],
)
def test_an_impossible_vocabulary_is_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vocabulary(words)


def test_a_caption_is_split_twice_only_for_a_capital_within_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most captions have none, and splitting takes most of the time of building a vocabulary."""
    split: list[str] = []
    plain = vocab._parts
    monkeypatch.setattr(vocab, "_parts", lambda text: split.append(text) or plain(text))
    captions = ["A dog plays frisbee.", "the man's dog", "A dog and a Frisbee", "One Frisbee", "3 Frisbee"]
    vocabulary = Vocabulary.build(captions)
    assert len(split) == len(captions) + 3
    assert vocabulary.spellings == {"frisbee": "Frisbee"}
    assert Vocabulary.build(["A dog plays frisbee.", *captions]).spellings == {}  # 3 of 5 uses
