"""Training, from single functions to whole runs of the command on generated pictures."""

import dataclasses
import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY_ENCODER, draw_picture
from PIL import Image

import captioner
from captioner.checkpoint import load_checkpoint, shipped_checkpoint
from captioner.data import Example, find_examples, read_captions, read_split_list
from captioner.model import Encoder
from captioner.options import TrainConfig
from captioner.shapes import make_shapes
from captioner.training import (
    Captions,
    Split,
    TrainingError,
    augmented,
    batches_by_length,
    concept_labels,
    mirror_table,
    train,
)
from captioner.vocab import END, PAD, START, Vocabulary


def examples(*captions: tuple[str, ...]) -> list[Example]:
    return [Example(f"{index}.jpg", Path(f"{index}.jpg"), those) for index, those in enumerate(captions)]


def test_captions_are_flat_arrays_with_start_and_end() -> None:
    vocabulary = Vocabulary.build(["a dog runs"])
    a, dog, runs = vocabulary.encode("a dog runs")
    captions = Captions.of(examples(("A dog .", "a dog runs"), ("dog",)), vocabulary)
    assert captions.picture.tolist() == [0, 0, 1]
    batch = captions.batch(torch.tensor([2, 1]))
    assert batch.tolist() == [[START, dog, END, PAD, PAD], [START, a, dog, runs, END]]


def test_batches_hold_every_caption_once_and_little_padding() -> None:
    lengths = torch.randint(5, 25, (3000,), generator=torch.Generator().manual_seed(1))
    batches = batches_by_length(lengths, 64, torch.Generator().manual_seed(2))
    assert sorted(torch.cat(batches).tolist()) == list(range(3000))
    computed = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    assert computed / int(lengths.sum()) < 1.05
    again = batches_by_length(lengths, 64, torch.Generator().manual_seed(2))
    other = batches_by_length(lengths, 64, torch.Generator().manual_seed(3))
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))
    assert not all(len(a) == len(b) and torch.equal(a, b) for a, b in zip(batches, other, strict=True))


def test_a_mirrored_picture_swaps_left_and_right() -> None:
    vocabulary = Vocabulary.build(["dog on the left man on the right"])
    table = mirror_table(vocabulary)
    swapped = table[torch.tensor(vocabulary.encode("dog on the left of the right man"))]
    assert vocabulary.decode(swapped.tolist()) == vocabulary.decode(
        vocabulary.encode("dog on the right of the left man")
    )
    alone = Vocabulary.build(["dog left"])
    assert torch.equal(mirror_table(alone), torch.arange(len(alone)))


def test_concepts_are_the_frequent_words_that_tell_pictures_apart() -> None:
    those = examples(("a dog", "a dog runs"), ("a cat",), ("a dog",), ("a man",))
    words, labels = concept_labels(those, 2)
    assert words == ["dog", "cat"]  # "a" is everywhere; ties go by the alphabet
    assert labels.tolist() == [[1, 0], [0, 1], [1, 0], [0, 0]]


def test_augmentation_keeps_most_of_the_picture_and_mirrors_when_told() -> None:
    picture = Image.linear_gradient("L").rotate(90).convert("RGB").resize((100, 50))  # brighter towards one side
    plain = augmented(picture, False, 32, random.Random(3))
    mirrored = augmented(picture, True, 32, random.Random(3))
    assert plain.size == (32, 32)
    assert plain.tobytes() == mirrored.transpose(Image.Transpose.FLIP_LEFT_RIGHT).tobytes()
    assert plain.tobytes() != mirrored.tobytes()
    shares = []
    for seed in range(50):
        low, high = augmented(picture, False, 32, random.Random(seed)).convert("L").getextrema()
        shares.append((high - low) / 255)
    assert min(shares) > 0.8
    assert max(shares) - min(shares) > 0.05  # it does vary


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path, Path]:
    return make_shapes(tmp_path_factory.mktemp("shapes"), 60)


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torchvision state dict of random weights for the tiny encoder."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(Encoder(TINY_ENCODER).backbone.state_dict(), path)
    return path


TINY = TrainConfig(
    encoder=TINY_ENCODER,
    epochs=2,
    finetune_epochs=1,
    image_size=32,
    hidden_size=32,
    embedding_size=16,
    concepts=10,
    minimum_count=1,
)


def split_of(shapes: tuple[Path, Path, Path, Path]) -> Split:
    captions = read_captions(shapes[0]).captions
    parts = [find_examples(captions, shapes[1], read_split_list(names)) for names in shapes[2:]]
    return Split(parts[0], parts[1], {"captions": "shapes"})


def test_a_run_leaves_its_config_its_log_and_a_scored_checkpoint(
    shapes: tuple[Path, Path, Path, Path], tiny_weights: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    path = train(TINY, split_of(shapes), tmp_path / "run", tiny_weights, lines.append)
    assert json.loads((tmp_path / "run/config.json").read_text())["train"] == dataclasses.asdict(TINY)
    log = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in log] == [1, 2, 3]
    assert len([line for line in lines if "val BLEU-4" in line]) == 3
    assert log[1]["train_loss"] < log[0]["train_loss"]
    provenance = load_checkpoint(path).provenance
    assert provenance["training"] == dataclasses.asdict(TINY)
    assert provenance["encoder_weights"]["source"] == "file tiny.pth"
    assert provenance["data"] == {"captions": "shapes"}
    # The scores are those of exactly the stored weights.
    split = split_of(shapes)
    best = max(log, key=lambda row: row["bleu_4"])
    assert provenance["validation"]["bleu_4"] == best["bleu_4"]
    captions = captioner.load(path).caption_batch([example.path for example in split.validation])
    assert provenance["validation"]["distinct"] == len({caption.text.lower() for caption in captions})
    assert sorted(entry.name for entry in (tmp_path / "run").iterdir()) == [
        "best.safetensors",
        "config.json",
        "metrics.jsonl",
    ]


def test_the_same_seed_gives_the_same_weights_and_the_encoder_learns_only_end_to_end(
    shapes: tuple[Path, Path, Path, Path], tiny_weights: Path, tmp_path: Path
) -> None:
    def trained(name: str, **changes: float) -> dict[str, torch.Tensor]:
        config = dataclasses.replace(TINY, **changes)
        path = train(config, split_of(shapes), tmp_path / name, tiny_weights, lambda line: None)
        return load_checkpoint(path).model.state_dict()

    frozen, again, other, tuned = (
        trained("a", finetune_epochs=0),
        trained("b", finetune_epochs=0),
        trained("c", finetune_epochs=0, seed=1),
        trained("d", epochs=0, finetune_epochs=1, encoder_learning_rate=0.05),
    )
    assert all(torch.equal(frozen[name], again[name]) for name in frozen)
    assert not torch.equal(frozen["decoder.h0.weight"], other["decoder.h0.weight"])
    given = {name: w.half().float() for name, w in torch.load(tiny_weights, weights_only=True).items()}
    for name, weights in given.items():
        assert torch.equal(frozen["encoder.backbone." + name], weights), name
        statistic = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(tuned["encoder.backbone." + name], weights) == statistic, name


def test_a_diverged_run_says_so(shapes: tuple[Path, Path, Path, Path], tiny_weights: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, learning_rate=1.0, gradient_clip=math.inf, finetune_epochs=0, epochs=50)
    weights = torch.load(tiny_weights, weights_only=True)
    weights["conv1.0.weight"] *= 1e30
    torch.save(weights, tmp_path / "huge.pth")
    with pytest.raises(TrainingError, match=r"try a smaller learning rate|diverged"):
        train(config, split_of(shapes), tmp_path / "run", tmp_path / "huge.pth", lambda line: None)


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "captioner", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--encoder": "resnet1000"}, "unknown encoder 'resnet1000'"),
        ({"--encoder": "squeezenet1_0"}, "no linear classifier"),
        ({"--images": "elsewhere"}, "no such folder of pictures"),
        ({"--images": "."}, "pictures are not in"),
        ({"--captions": "none.txt"}, "no such captions file"),
        ({"--train-list": "empty.txt"}, "the split list is empty"),
        ({"--val-list": "TRAIN"}, "in both split lists"),
        ({"--encoder-weights": "none.pth"}, "no such file"),
        ({"--epochs": "0", "--finetune-epochs": "0"}, "nothing"),
        ({"--dropout": "1.5"}, "dropout must be at most"),
    ],
)
def test_wrong_input_gets_one_clear_line_and_status_2(
    command: Callable[..., tuple[int, str, str]],
    shapes: tuple[Path, Path, Path, Path],
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n")
    arguments = {
        "--captions": str(shapes[0]),
        "--images": str(shapes[1]),
        "--train-list": str(shapes[2]),
        "--val-list": str(shapes[3]),
        "--encoder": TINY_ENCODER,
        "--encoder-weights": str(tiny_weights),
        "--output": "run",
        **{name: value.replace("TRAIN", str(shapes[2])) for name, value in changes.items()},
    }
    status, output, errors = command("train", *(part for pair in arguments.items() for part in pair))
    assert status == 2
    assert message in errors.splitlines()[-1]
    assert output == ""
    assert not Path("run").exists()


@pytest.mark.slow
def test_shapes_from_pictures_to_bleu(tmp_path: Path) -> None:
    """The whole path: generated pictures, training from the shipped encoder, captions of held-out pictures."""
    captions, images, train_list, val_list = make_shapes(tmp_path, 270)
    done = run(
        *("train", "--captions", captions, "--images", images, "--train-list", train_list, "--val-list", val_list),
        *("--encoder-weights", shipped_checkpoint(), "--epochs", 30, "--finetune-epochs", 4, "--image-size", 96),
        *("--hidden-size", 128, "--embedding-size", 64, "--minimum-count", 1, "--batch-size", 32),
        *("--output", tmp_path / "run"),
    )
    assert done.returncode == 0, done.stderr
    checkpoint = done.stdout.strip()
    scored = run(
        *("evaluate", "--captions", captions, "--images", images, "--split-list", val_list),
        *("--checkpoint", checkpoint, "--json", tmp_path / "scores.json"),
    )
    assert scored.returncode == 0, scored.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["images"] == 54
    assert scores["bleu_4"] > 80
    draw_picture(1).save(tmp_path / "other.png")
    assert run("caption", tmp_path / "other.png", "--checkpoint", checkpoint).returncode == 0
