"""Both languages say the same things, and nothing that nobody sees."""

import re
from pathlib import Path

import captioner.page
from captioner.page.texts import TEXTS
from captioner.pictures.sample_pictures import SAMPLES

SOURCES = "".join(path.read_text(encoding="utf-8") for path in Path(captioner.page.__file__).parent.rglob("*.py"))


def test_both_languages_have_the_same_places_for_values() -> None:
    for key, texts in TEXTS.items():
        english, chinese = (set(re.findall(r"\{(\w+)", text)) for text in (texts["en"], texts["zh"]))
        assert english == chinese, key


def test_every_text_is_used() -> None:
    for key in TEXTS:
        spoken = key in SAMPLES or re.search(rf"[\"']{key}[\"']", SOURCES) or key.startswith("help_")
        assert spoken, key


def test_chinese_is_chinese() -> None:
    for key, texts in TEXTS.items():
        assert key in ("top_k", "top_p") or re.search(r"[\u4e00-\u9fff]", texts["zh"]), key
