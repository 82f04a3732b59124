"""What captioner writes as JSON is what docs/schemas says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

import captioner
from captioner.errors import ImageError
from captioner.inference.results import row_of
from captioner.metadata.sidecars import Sidecars
from captioner.metadata.xmp import Entry

SCHEMAS = Path(__file__).parent.parent / "docs" / "schemas"
Command = Callable[..., tuple[int, str, str]]


def closed(schema: Any) -> Any:
    """The schema, in which no object may have more than it names. A published one leaves room for later versions."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {name: closed(part) for name, part in schema.items()}
    return {"unevaluatedProperties": False, **parts} if parts.get("properties") and "type" in parts else parts


def check(name: str, content: Any) -> None:
    """Raise ValidationError if the content is not what the schema says, or holds what it does not say."""
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(closed(schema)).validate(content)


@pytest.mark.parametrize(
    "options", [(), ("--num-captions", 3), ("--max-length", 2), ("--strategy", "sample", "--num-captions", 2)]
)
def test_lines_of_jsonl(
    command: Command, pictures: list[Path], tiny_checkpoint_file: Path, options: tuple[object, ...]
) -> None:
    status, out, _ = command("caption", *pictures, "-f", "jsonl", "--checkpoint", tiny_checkpoint_file, *options)
    assert status == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 7
    for row in rows:
        check("caption", row)
        assert len(row["digest"]) == 64
        for needed in row.keys() - {"alternatives", "digest"}:
            with pytest.raises(ValidationError):
                check("caption", {name: value for name, value in row.items() if name != needed})
    with pytest.raises(ValidationError):
        check("caption", {**rows[0], "something": "new"})


def test_a_caption_as_a_dictionary_is_a_line_without_its_path(pictures: list[Path], tiny_checkpoint_file: Path) -> None:
    model = captioner.load(tiny_checkpoint_file)
    options = captioner.DecodeOptions(num_captions=3)
    [result, failed] = model.caption_named([("a", pictures[0]), ("b", ImageError("b: is lost"))], options)
    assert result.caption
    content = result.caption.to_dict()
    assert row_of(result) == {"path": "a", **content}
    assert content["caption"] == result.caption.text
    assert [other["caption"] for other in content["alternatives"]] == [o.text for o in result.caption.alternatives]
    assert json.loads(json.dumps(content)) == content
    check("caption", row_of(failed))


def test_lines_that_a_person_corrected(pictures: list[Path], tiny_checkpoint_file: Path) -> None:
    pytest.importorskip("streamlit")
    from captioner.page.folder import Folder

    model = captioner.load(tiny_checkpoint_file)
    work = Folder(str(pictures[0].parent), "sidecar")
    while work.advance(model):
        pass
    first, second, *_ = sorted(row["path"] for row in work.captioned())
    work.change(first, "mine", work.found[first]["caption"])
    work.change(second, "", work.found[second]["caption"])
    assert {row.get("author") for row in work.rows()} == {"captioner", "person"}
    for row in work.rows():
        check("caption", row)
        accepted = {**row_of(model.caption_together([("a", pictures[0])])[0]), "author": "person"}
    check("caption", accepted)


def test_results_of_coco(command: Command, pictures: list[Path], tiny_checkpoint_file: Path) -> None:
    named = [path.rename(path.with_name(f"COCO_{number:012}.jpg")) for number, path in enumerate(pictures, 1)]
    status, out, err = command("caption", *named, "-f", "coco", "--checkpoint", tiny_checkpoint_file)
    assert status == 0, err
    assert len(json.loads(out)) == 7
    check("coco-results", json.loads(out))


@pytest.mark.parametrize("references", [1, 3])
@pytest.mark.parametrize("text", ["A dog runs on the grass", "一只狗在草地上跑"])
def test_scores_of_an_evaluation(
    command: Command, pictures: list[Path], tmp_path: Path, references: int, text: str
) -> None:
    lines = [f"{path.name}#{n}\t{text}{n}\n" for path in pictures for n in range(references)]
    (tmp_path / "captions.token.txt").write_text("".join(lines), encoding="utf-8")
    rows = [{"path": str(path), "caption": text} for path in pictures[1:]]
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ("--captions", tmp_path / "captions.token.txt", "--predictions", tmp_path / "predictions.jsonl")
    status, _, err = command("evaluate", *data, "--allow-missing", "--json", tmp_path / "scores.json")
    assert status == 0, err
    content = json.loads((tmp_path / "scores.json").read_text())
    assert (content["human"] is None) == (references == 1)
    assert content["problems"]
    check("evaluation", content)
    with pytest.raises(ValidationError):
        check("evaluation", {**content, "something": "new"})


def test_lines_of_read(command: Command, pictures: list[Path]) -> None:
    Sidecars().write(str(pictures[0]), Entry("A dog runs", "en", 0.5))
    pictures[1].with_suffix(".txt").write_text("A dog\nA cat\n")
    status, out, _ = command("read", *pictures, "-f", "jsonl")
    assert status == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 2
    for row in rows:
        check("read", row)


def test_pictures_without_alternative_text(
    command: Command, pictures: list[Path], tiny_checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONER_CACHE", str(pictures[0].parent / "cache"))
    page = pictures[0].with_name("a.md")
    page.write_text("![](picture0.jpg) ![](gone.jpg)")
    for flags in ((), ("--write", "--min-confidence", 0, "--checkpoint", tiny_checkpoint_file)):
        _, out, _ = command("alt", page, "-f", "json", *flags)
        assert len(json.loads(out)) == 2
        check("alt", json.loads(out))
    with pytest.raises(ValidationError):
        check("alt", [{**json.loads(out)[0], "something": "new"}])
