"""`captioner evaluate` as people run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sentences import scenes

from captioner.evaluation.scores import METRICS, score_captions, score_pictures
from captioner.files import sha256_of

Command = Callable[..., tuple[int, str, str]]

REFERENCES = {
    "a.jpg": ["A black dog runs in the snow .", "The dog runs through snow ."],
    "b.jpg": ["A man sits on a bench .", "The man is sitting ."],
    "c.jpg": ["Two girls play with a ball .", "Girls with a ball"],
}
CAPTIONS = {"a.jpg": "A dog runs in the snow", "b.jpg": "A man sits on a bench", "c.jpg": "Two boys play"}


def captions_file(folder: Path, references: dict[str, list[str]]) -> Path:
    file = folder / "captions.token.txt"
    lines = [f"{name}#{number}\t{text}" for name, those in references.items() for number, text in enumerate(those)]
    file.write_text("\n".join(lines) + "\n")
    return file


def jsonl(file: Path, captions: dict[str, str]) -> Path:
    rows = [json.dumps({"path": f"photos/{name}", "caption": text}) for name, text in captions.items()]
    file.write_text("".join(row + "\n" for row in rows))
    return file


@pytest.fixture
def references(tmp_path: Path) -> Path:
    return captions_file(tmp_path, REFERENCES)


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    return jsonl(tmp_path / "predictions.jsonl", CAPTIONS)


# --- predictions ----------------------------------------------------------------------------------------------------


def test_scores_predictions_without_a_model(
    command: Command, references: Path, predictions: Path, tmp_path: Path
) -> None:
    output = tmp_path / "scores.json"
    status, out, err = command("evaluate", "--captions", references, "--predictions", predictions, "--json", output)
    assert status == 0
    expected = score_pictures(CAPTIONS, REFERENCES)
    assert out.startswith(expected.table() + "\n")
    assert "3 images, 6 references, 3 distinct captions (100.0 %)" in out
    assert f"floor: {expected.floor['caption']}\n" in out
    assert f"recipe: metrics:bleu+rouge_l+cider_d|images:3|refs:2|refs_sha:{expected.references_sha256[:12]}|" in out
    assert f"|predictions:{sha256_of(predictions)[:12]}|" in out
    assert "torch:" not in out, "the scores of predictions do not depend on it"
    assert err == f"captioner: wrote {output}\n"
    written = json.loads(output.read_text())
    assert {key: written[key] for key in METRICS} == {key: expected.scores[key] for key in METRICS}
    assert written["recipe"] in out
    assert written["problems"] == {}


@pytest.mark.parametrize("form", ["csv", "coco", "coco with a list"])
def test_other_forms_of_predictions_give_the_same_scores(
    command: Command, references: Path, predictions: Path, tmp_path: Path, form: str
) -> None:
    other, more = tmp_path / "other", []
    if form == "csv":
        other.write_text("path,caption\n" + "".join(f"{name},{text}\n" for name, text in CAPTIONS.items()))
    elif form == "coco":
        references = captions_file(tmp_path, {f"{ord(name[0])}.jpg": those for name, those in REFERENCES.items()})
        other.write_text(json.dumps([{"image_id": ord(n[0]), "caption": text} for n, text in CAPTIONS.items()]))
        predictions = jsonl(predictions, {f"{ord(name[0])}.jpg": text for name, text in CAPTIONS.items()})
    else:
        other.write_text(json.dumps([{"image_id": ord(n[0]), "caption": text} for n, text in CAPTIONS.items()]))
        (tmp_path / "ids").write_text(json.dumps({"images": [{"id": ord(n[0]), "file_name": n} for n in CAPTIONS]}))
        more = ["--coco-images", tmp_path / "ids"]
    _, first, _ = command("evaluate", "--captions", references, "--predictions", predictions)
    status, second, err = command("evaluate", "--captions", references, "--predictions", other, *more)
    assert (status, err) == (0, "")
    assert second.splitlines()[:-1] == first.splitlines()[:-1], "all but the recipe, which names the file"


def test_a_split_list_selects(command: Command, references: Path, predictions: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("a.jpg\nc.jpg\n")
    arguments = ("evaluate", "--captions", references, "--predictions", predictions, "--split-list", names)
    status, out, err = command(*arguments)
    assert status == 0
    assert "2 images, 4 references" in out
    assert "1 caption of pictures that are not evaluated" in err


def test_same_input_same_bytes_whatever_the_hash_seed(references: Path, predictions: Path, tmp_path: Path) -> None:
    captions, texts = scenes(25)
    names = [f"{number}.jpg" for number in range(25)]
    references = captions_file(tmp_path, dict(zip(names, texts, strict=True)))
    predictions = jsonl(predictions, dict(zip(names, captions, strict=True)))
    outputs = []
    for seed in ("1", "2"):
        files = tmp_path / f"{seed}.json", tmp_path / f"{seed}.html"
        arguments = ["--captions", references, "--predictions", predictions, "--json", files[0], "--report", files[1]]
        run = subprocess.run(
            [sys.executable, "-m", "captioner", "evaluate", *map(str, arguments)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        )
        outputs.append((run.stdout, *(file.read_bytes() for file in files)))
    assert outputs[0] == outputs[1]


def test_the_ids_of_the_references_decide(command: Command, tmp_path: Path) -> None:
    captions = ["a red circle on a wall", "two green dogs in the snow", "a plane lands at night", "a woman eats bread"]
    ids, names = [14, 12, 15, 0], ["12.jpg", "13.jpg", "14.jpg", "15.jpg"]
    images = [{"id": key, "file_name": name} for key, name in zip(ids, names, strict=True)]
    rows = [{"image_id": key, "caption": text} for key, text in zip(ids, captions, strict=True)]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "annotations": rows}))
    (tmp_path / "results.json").write_text(json.dumps(rows))
    files = ("--captions", tmp_path / "coco.json", "--predictions", tmp_path / "results.json")
    status, out, err = command("evaluate", *files)
    assert (status, err) == (0, "")
    assert out.splitlines()[2].split()[-2] == "1000.0"


def test_two_rows_are_shown_as_they_were_understood(command: Command, references: Path, predictions: Path) -> None:
    _, out, _ = command("evaluate", "--captions", references, "--predictions", predictions)
    shown = [line for line in out.splitlines() if line.startswith("read as: ")]
    assert shown == [
        f"read as: {name}: {CAPTIONS[name]!r}; people: {REFERENCES[name][0]!r}" for name in ("a.jpg", "b.jpg")
    ]


def test_what_was_read_otherwise_is_said_of_both_files(command: Command, tmp_path: Path) -> None:
    (tmp_path / "refs.tsv").write_text("image\tcaption\na.jpg\t<start> a dog runs <end>\n")
    (tmp_path / "blip.json").write_text('[{"path": "a.jpg", "caption": "a dog"}, {"path": "b.jpg", "error": "no"}]')
    files = ("--captions", tmp_path / "refs.tsv", "--predictions", tmp_path / "blip.json")
    status, _, err = command("evaluate", *files)
    assert status == 0
    assert f"captioner: {files[1]}: marks around captions are dropped, 1 times" in err
    assert f"captioner: {files[3]}: rows with an error and no caption, which count as missing: 1\n" in err


# --- it refuses to mislead ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("captions", "kind", "complaint"),
    [
        ({"a.jpg": "A dog", "b.jpg": "A man"}, "no_caption", "1 picture has references but no caption (c.jpg)"),
        ({**CAPTIONS, "d.jpg": "A cat"}, "no_references", "1 picture without references (photos/d.jpg)"),
        ({**CAPTIONS, "x/a.jpg": "A cat"}, "repeated", "1 picture has several captions (a.jpg)"),
        ({**CAPTIONS, "b.jpg": " ."}, "empty", "1 caption has no words (b.jpg)"),
    ],
)
def test_what_has_no_counterpart_is_refused_unless_allowed(
    command: Command, references: Path, tmp_path: Path, captions: dict[str, str], kind: str, complaint: str
) -> None:
    file, output = jsonl(tmp_path / "some.jsonl", captions), tmp_path / "scores.json"
    arguments = ("evaluate", "--captions", references, "--predictions", file, "--json", output)
    status, out, err = command(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"captioner: error: {complaint}: ")
    assert "--allow-missing" in err
    assert err.count("\n") == 1
    assert not output.exists()
    status, out, err = command(*arguments, "--allow-missing")
    assert status == 0
    assert f"captioner: warning: {complaint}\n" in err
    assert f"|{kind}:1|" in out
    assert list(json.loads(output.read_text())["problems"]) == [kind]


def test_many_names_are_counted_and_the_first_ones_shown(command: Command, references: Path, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "some.jsonl", {**CAPTIONS, **{f"{number}.jpg": "A dog" for number in range(10)}})
    _, _, err = command("evaluate", "--captions", references, "--predictions", file)
    assert "10 pictures without references (photos/0.jpg, photos/1.jpg" in err
    assert ", ...)" in err


def test_references_of_the_split_list_must_be_there(
    command: Command, references: Path, predictions: Path, tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("a.jpg\nb.jpg\nc.jpg\nz.jpg\n")
    arguments = ("evaluate", "--captions", references, "--predictions", predictions)
    status, _, err = command(*arguments, "--split-list", tmp_path / "names.txt")
    assert status == 2
    assert "1 picture without references (z.jpg)" in err


def test_references_without_words_are_told(command: Command, predictions: Path, tmp_path: Path) -> None:
    references = captions_file(tmp_path, {**REFERENCES, "a.jpg": ["A dog .", "!"]})
    arguments = ("evaluate", "--captions", references, "--predictions", predictions)
    status, _, err = command(*arguments)
    assert status == 2
    assert "1 picture has a reference without words (a.jpg)" in err
    status, out, _ = command(*arguments, "--allow-missing")
    assert status == 0
    assert "3 images, 5 references" in out


def test_nothing_in_common_is_refused_even_when_allowed(command: Command, references: Path, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "other.jsonl", {"z.jpg": "A dog"})
    status, _, err = command("evaluate", "--captions", references, "--predictions", file, "--allow-missing")
    assert status == 2
    assert "captioner: error: no picture has both references and a caption\n" in err


def test_warns_of_one_caption_for_all(command: Command, references: Path, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "same.jsonl", dict.fromkeys(CAPTIONS, "A dog runs in the snow"))
    status, _, err = command("evaluate", "--captions", references, "--predictions", file)
    assert status == 0
    assert "captioner: warning: BLEU-4" in err


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "the file is empty"),
        ("hello", "captions in no known layout"),
        ("[1, 2", "neither JSON nor JSON lines"),
        ('[{"id": 1}]', "entry 1 needs a picture's name"),
        ('[{"image_id": 1, "caption": "a dog"}]', "give coco_images (--coco-images FILE)"),
    ],
)
def test_a_wrong_file_gets_one_line_and_status_2(
    command: Command, references: Path, tmp_path: Path, content: str, complaint: str
) -> None:
    file = tmp_path / "wrong"
    file.write_text(content)
    status, out, err = command("evaluate", "--captions", references, "--predictions", file)
    assert (status, out) == (2, "")
    assert err.startswith("captioner: error: ")
    assert complaint in err
    assert err.count("\n") == 1


def test_ids_that_do_not_match_get_one_line_and_status_2(command: Command, tmp_path: Path) -> None:
    references = captions_file(tmp_path, {f"{number}.jpg": ["A dog", "The dog"] for number in range(3)})
    file = tmp_path / "results.json"
    file.write_text(json.dumps([{"image_id": number, "caption": "a dog"} for number in (100, 101, 102)]))
    status, _, err = command("evaluate", "--captions", references, "--predictions", file)
    assert status == 2
    assert "3 pictures without references (100, 101, 102)" in err
    assert "3 pictures have references but no caption" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("flag", ["--captions", "--predictions", "--split-list", "--coco-images"])
def test_a_file_that_is_not_there_gets_one_line_and_status_2(
    command: Command, references: Path, predictions: Path, tmp_path: Path, flag: str
) -> None:
    arguments = {"--captions": references, "--predictions": predictions, flag: tmp_path / "nowhere"}
    status, _, err = command("evaluate", *(part for pair in arguments.items() for part in pair))
    assert status == 2
    assert err.startswith("captioner: error: ")
    assert str(tmp_path / "nowhere") in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "give the captions that people wrote with --captions FILE"),
        (
            ("--captions", "x"),
            "give images (--images DIR) and a model that captions them, or captions",
        ),
        (("--captions", "x", "--predictions", "y", "--checkpoint", "z"), "leave out --checkpoint"),
        (("--captions", "x", "--predictions", "y", "--beam-size", "5"), "leave out --beam-size"),
        (
            ("--captions", "x", "--images", "y", "--coco-images", "z"),
            "goes with predictions (--predictions) only",
        ),
        (("--compare", "x", "y"), "with a command of its own: captioner compare A.json B.json"),
        (("--captions", "x", "--images", "no such folder"), "x: no such captions file"),
    ],
)
def test_arguments_that_do_not_go_together(command: Command, arguments: tuple[str, ...], complaint: str) -> None:
    status, out, err = command("evaluate", *arguments)
    assert (status, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1


# --- a checkpoint ---------------------------------------------------------------------------------------------------


@pytest.fixture
def captioned(pictures: list[Path], tmp_path: Path) -> tuple[Path, Path]:
    """A captions file of the seven pictures, and their folder."""
    colours = {path.name: [f"A {path.stem} .", "a dog on the grass", "the dog"] for path in pictures}
    return captions_file(tmp_path, colours), pictures[0].parent


def test_captions_pictures_and_scores_them(
    command: Command, captioned: tuple[Path, Path], tiny_checkpoint_file: Path, tmp_path: Path
) -> None:
    references, images = captioned
    files = tmp_path / "scores.json", tmp_path / "report.html", tmp_path / "captions.jsonl"
    model = ("--checkpoint", tiny_checkpoint_file, "--beam-size", 2)
    data = ("--captions", references, "--images", images)
    status, out, _ = command("evaluate", *data, *model, "--json", files[0], "--report", files[1])
    assert status == 0
    assert "7 images, 21 references" in out
    assert f"|checkpoint:{sha256_of(tiny_checkpoint_file)[:12]}|" in out
    assert "|decoding:strategy=beam,beam_size=2," in out
    assert "|torch:" in out
    report = files[1].read_text()
    assert "data:image/jpeg;base64," in report
    assert "its probability in %" in report
    # The same captions as a file give the same scores.
    assert command("caption", images, *model, "--format", "jsonl", "--output", files[2])[0] == 0
    status, again, _ = command("evaluate", *data, "--predictions", files[2], "--report", files[1])
    assert status == 0
    assert again.splitlines()[:-1] == out.splitlines()[:-1]
    assert files[1].read_text().split("<h2>Recipe")[0] == report.split("<h2>Recipe")[0]


def test_pictures_and_references_must_match(
    command: Command, captioned: tuple[Path, Path], tiny_checkpoint_file: Path, tmp_path: Path
) -> None:
    references, images = captioned
    arguments = ("evaluate", "--captions", references, "--images", images, "--checkpoint", tiny_checkpoint_file)
    (images / "picture3.jpg").rename(images / "other.jpg")
    status, _, err = command(*arguments)
    assert status == 2
    assert "1 picture is not in the folder (picture3.jpg); 1 picture without references (other.jpg)" in err
    assert "--split-list" in err
    status, out, _ = command(*arguments, "--allow-missing")
    assert status == 0
    assert "6 images" in out
    names = tmp_path / "names.txt"
    names.write_text("picture0.jpg\npicture1.jpg\n")
    status, out, err = command(*arguments, "--split-list", names)
    assert (status, "2 images" in out) == (0, True), "a split list says what matters"


def test_an_unreadable_picture_is_named_and_fails_the_run(
    command: Command, captioned: tuple[Path, Path], tiny_checkpoint_file: Path
) -> None:
    references, images = captioned
    (images / "picture2.jpg").write_bytes(b"no picture")
    arguments = ("evaluate", "--captions", references, "--images", images, "--checkpoint", tiny_checkpoint_file)
    status, out, err = command(*arguments)
    assert (status, out) == (2, "")
    assert f"captioner: {images / 'picture2.jpg'}: " in err
    assert "captioner: error: 1 picture cannot be read (picture2.jpg)" in err
    status, out, _ = command(*arguments, "--allow-missing")
    assert status == 0
    assert "6 images" in out
    assert "|unreadable:1|" in out


def test_what_is_missing_is_told_before_minutes_of_work(command: Command, captioned: tuple[Path, Path]) -> None:
    references, images = captioned
    (images / "picture3.jpg").unlink()
    _, _, err = command("evaluate", "--captions", references, "--images", images, "--checkpoint", "nowhere")
    assert "1 picture is not in the folder (picture3.jpg)" in err, "the checkpoint has not been looked at"


def test_a_folder_that_is_not_there(command: Command, references: Path, tmp_path: Path) -> None:
    status, _, err = command("evaluate", "--captions", references, "--images", tmp_path / "nowhere")
    assert status == 2
    assert err == f"captioner: error: {tmp_path / 'nowhere'}: no such folder of pictures\n"


# --- speed ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_5000_captions_against_25000_references_take_less_than_10_seconds() -> None:
    captions, references = scenes(5000)
    start = time.process_time()
    score_captions(captions, references)
    assert time.process_time() - start < 10


# --- other languages and layouts ------------------------------------------------------------------------------------


def test_chinese_is_compared_in_characters_and_the_recipe_says_so(command: Command, tmp_path: Path) -> None:
    texts = {"a.jpg": "一只黑狗在雪地里奔跑。", "b.jpg": "一个男人坐着。"}
    references, output = tmp_path / "zh.txt", tmp_path / "scores.json"
    references.write_text("".join(f"{name}#zhc#{n} {text}\n" for name, text in texts.items() for n in range(2)))
    predictions = jsonl(tmp_path / "p.jsonl", {**texts, "b.jpg": "一个女人坐着"})
    arguments = ("evaluate", "--captions", references, "--predictions", predictions, "--json", output)
    status, out, _ = command(*arguments)
    assert status == 0
    assert "|tok:captioner-character|" in out
    assert json.loads(output.read_text())["tokens"] == "character"
    assert 0 < json.loads(output.read_text())["bleu_4"] < 100
    _, out, _ = command(*arguments, "--tokens", "word")
    assert "|tok:captioner-ptb-lower-nopunct|" in out


def test_the_split_in_the_file_selects(command: Command, predictions: Path, tmp_path: Path) -> None:
    splits = {"a.jpg": "train", "b.jpg": "val", "c.jpg": "val"}
    images = [
        {"filename": name, "split": splits[name], "sentences": [{"raw": text} for text in texts]}
        for name, texts in REFERENCES.items()
    ]
    references = tmp_path / "dataset_flickr8k.json"
    references.write_text(json.dumps({"images": images, "dataset": "flickr8k"}))
    arguments = ("evaluate", "--captions", references, "--predictions", predictions)
    status, out, _ = command(*arguments, "--split", "val")
    assert status == 0
    assert "2 images, 4 references" in out
    status, _, err = command(*arguments, "--split", "test")
    assert (status, err.count("\n")) == (2, 1)
    assert "the splits are train (1), val (2)" in err
    status, _, err = command(*arguments, "--split", "val", "--split-list", references)
    assert (status, err.count("\n")) == (2, 1)
    assert "leave out one" in err


def test_captions_of_coco_are_matched_by_file_name(
    command: Command, pictures: list[Path], tiny_checkpoint_file: Path, tmp_path: Path
) -> None:
    content = {
        "images": [{"id": 7 * number, "file_name": path.name} for number, path in enumerate(pictures)],
        "annotations": [{"id": n, "image_id": 7 * (n // 2), "caption": f"a dog {n}"} for n in range(2 * len(pictures))],
    }
    references = tmp_path / "captions_val2017.json"
    references.write_text(json.dumps(content))
    data = ("--captions", references, "--images", pictures[0].parent)
    status, out, err = command("evaluate", *data, "--checkpoint", tiny_checkpoint_file)
    assert status == 0, err
    assert "7 images, 14 references" in out


def test_pictures_are_found_without_the_folder_in_front_of_their_name(
    command: Command, pictures: list[Path], tiny_checkpoint_file: Path, tmp_path: Path
) -> None:
    references = captions_file(tmp_path, {f"val2014/{path.name}": ["a dog", "a cat"] for path in pictures})
    data = ("--captions", references, "--images", pictures[0].parent, "--report", tmp_path / "report.html")
    status, out, err = command("evaluate", *data, "--checkpoint", tiny_checkpoint_file)
    assert status == 0, err
    assert "7 images" in out
    assert "data:image/jpeg;base64," in (tmp_path / "report.html").read_text()


def test_empty_references_are_told(command: Command, predictions: Path, tmp_path: Path) -> None:
    references = captions_file(tmp_path, {**REFERENCES, "a.jpg": [*REFERENCES["a.jpg"], " "]})
    status, out, err = command("evaluate", "--captions", references, "--predictions", predictions)
    assert status == 0
    assert "3 images, 6 references" in out
    assert err == "captioner: left out: 1 empty reference\n"
