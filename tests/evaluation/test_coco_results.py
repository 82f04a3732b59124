"""What the coco format writes, read by the programs it is meant for."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocotools.coco import COCO

from captioner.vocab import tokenise


def test_pycocoevalcap_reads_it_and_scores_what_evaluate_says(
    command: Callable[..., tuple[int, str, str]], pictures: list[Path], tiny_checkpoint_file: Path, tmp_path: Path
) -> None:
    sentences = ["A man sits on the grass .", "The dog runs in the snow .", "A red ball .", "The cat sits on a man ."]
    references = {path.name: [sentences[(i + k) % 4] for k in range(3)] for i, path in enumerate(pictures)}
    images = [{"id": 100 + i, "file_name": path.name} for i, path in enumerate(pictures)]
    annotations = [
        {"id": 10 * i + k, "image_id": 100 + i, "caption": caption}
        for i, path in enumerate(pictures)
        for k, caption in enumerate(references[path.name])
    ]
    (tmp_path / "coco.json").write_text(json.dumps({"info": {}, "images": images, "annotations": annotations}))
    lines = [f"{name}#{k}\t{caption}" for name, those in references.items() for k, caption in enumerate(those)]
    (tmp_path / "captions.txt").write_text("\n".join(lines))

    folder, model = pictures[0].parent, ("--checkpoint", tiny_checkpoint_file)
    coco_format = ("--format", "coco", "--coco-images", tmp_path / "coco.json", "--output", tmp_path / "results.json")
    assert command("caption", folder, *coco_format, *model)[0] == 0
    data = ("--captions", tmp_path / "captions.txt", "--images", folder, "--json", tmp_path / "scores.json")
    assert command("evaluate", *data, *model)[0] == 0
    ours = json.loads((tmp_path / "scores.json").read_text())

    truth = COCO(str(tmp_path / "coco.json"))
    results = truth.loadRes(str(tmp_path / "results.json"))
    theirs = [
        {image: [" ".join(tokenise(one["caption"])) for one in those] for image, those in part.imgToAnns.items()}
        for part in (truth, results)
    ]
    assert 100 * Bleu(4).compute_score(*theirs, verbose=0)[0][0] == pytest.approx(ours["bleu_1"], abs=1e-4)
    assert 100 * Cider().compute_score(*theirs)[0] == pytest.approx(ours["cider"], abs=1e-4)
