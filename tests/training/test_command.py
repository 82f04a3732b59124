"""`captioner train` on the layouts that bring their own split, and on pictures that are in both parts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY_ENCODER

from captioner.network.checkpoint import load_checkpoint

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def trained(
    command: Command, pictures: list[Path], tiny_checkpoint_file: Path, tmp_path: Path
) -> Callable[[object], tuple[dict[str, object], str]]:
    """Train for an epoch on a JSON document: what the run says of its data, and stderr."""

    def run(content: object) -> tuple[dict[str, object], str]:
        (tmp_path / "captions.json").write_text(json.dumps(content))
        status, out, err = command(
            *("train", "--captions", tmp_path / "captions.json", "--images", pictures[0].parent),
            *("--encoder", TINY_ENCODER, "--encoder-weights", tiny_checkpoint_file, "--output", tmp_path / "run"),
            *("--epochs", 1, "--finetune-epochs", 0, "--match-epochs", 0, "--image-size", 32, "--hidden-size", 8),
            *("--embedding-size", 8, "--minimum-count", 1, "--seed", 5),
        )
        assert status == 0, err
        config = json.loads((tmp_path / "run" / "config.json").read_text())
        # The checkpoint says the same, but for the names of the pictures.
        stored = load_checkpoint(Path(out.strip())).provenance["data"]
        assert {**config["data"], "split": None} == {**stored, "split": None}
        return config["data"], err

    return run


def test_captions_of_coco(trained: Callable[..., tuple[dict[str, object], str]], pictures: list[Path]) -> None:
    names = [*(path.name for path in pictures), "lost.jpg"]
    data, err = trained(
        {
            "images": [{"id": 100 + number, "file_name": name} for number, name in enumerate(names)],
            "annotations": [
                {"id": number, "image_id": 100 + number % len(names), "caption": "A dog runs ."}
                for number in range(2 * len(names))
            ],
        }
    )
    assert (data["train_captions"], data["validation_captions"], data["missing_pictures"]) == (12, 2, 1)
    assert data["form"] == "COCO captions JSON"
    assert isinstance(data["split"], dict)
    assert data["split"]["seed"] == 5
    assert len(data["split"]["validation"]) == 1
    assert "note: left out: 1 of 8 captioned pictures, not in " in err
    assert "warning" not in err


def test_karpathys_split_and_a_picture_in_both_parts(
    trained: Callable[..., tuple[dict[str, object], str]], pictures: list[Path]
) -> None:
    shutil.copy(pictures[0], pictures[4])
    splits = ["train", "train", "restval", "train", "val", "test", "test"]
    data, err = trained(
        {
            "images": [
                {"filename": path.name, "split": split, "sentences": [{"raw": "A dog runs ."}]}
                for path, split in zip(pictures, splits, strict=True)
            ]
        }
    )
    assert (data["train_pictures"], data["validation_pictures"]) == (4, 1)
    assert data["split"] == {"field": "split"}
    assert "warning: the same pictures are in train and validation, 1 pair: picture0.jpg = picture4.jpg\n" in err
