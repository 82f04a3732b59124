"""The end of a run: the checkpoint is calibrated, and gets the scores of exactly the weights that it stores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from captioner.errors import counted
from captioner.network.checkpoint import Checkpoint, load_checkpoint, rounded, save_checkpoint
from captioner.options import DecodeOptions
from captioner.training.calibration import calibration, divide_logits, fit_temperature
from captioner.training.first import EVIDENCE
from captioner.training.records import write_reliability
from captioner.training.trust import FEWEST, RIGHT
from captioner.training.validation import Validation

MOST_CALIBRATION_ERROR = 2.0  # in percent points; a checkpoint with a larger error is calibrated


def finish(path: Path, validation: Validation, provenance: dict[str, Any]) -> str:
    """Calibrate the checkpoint `path`, store its scores and `provenance` in it, and return a line about them.

    Where its probabilities are off, its logits are divided by a temperature; reliability.png shows both. The weight of
    the words that are found in pictures becomes the one with the best CIDEr-D. A checkpoint that is finished already
    does not change.
    """
    checkpoint = load_checkpoint(path)
    if "validation" not in checkpoint.provenance:
        decoder, batches, temperature = checkpoint.model.decoder, validation.batches(checkpoint), 1.0
        before = after = calibration(decoder, batches)
        if before.error > MOST_CALIBRATION_ERROR:
            temperature = fit_temperature(decoder, batches)
            divide_logits(decoder, temperature)
            checkpoint.model.load_state_dict(rounded(checkpoint.model))
            after = calibration(decoder, batches)
        write_reliability(path.with_name("reliability.png"), before, after)
        scores = weigh_evidence(checkpoint, validation)
        del scores["samples"]
        checkpoint.trust, worth = validation.trust(checkpoint)
        checkpoint.provenance = {
            **provenance,
            "calibration": {"temperature": temperature, "error_before": before.error, "error": after.error},
            "validation": {**scores, "decoding": DecodeOptions().used(), "precision": validation.precision},
            "trust": worth,
        }
        if checkpoint.model.matcher:
            checkpoint.provenance["retrieval"] = validation.retrieval(checkpoint)
        save_checkpoint(path, checkpoint)
    scores, calibrated, worth = (checkpoint.provenance[name] for name in ("validation", "calibration", "trust"))
    sure = (
        f"; {100 * worth['kept']:.0f} % of captions are sure enough that {100 * RIGHT:.0f} % of them are right"
        if checkpoint.trust
        else f"; captions get no confidence, which takes {FEWEST} validation pictures"
    )
    found = ""
    if retrieval := checkpoint.provenance.get("retrieval"):
        first, among = retrieval["picture_by_sentence"]["r1"], counted(retrieval["pictures"], "picture")
        found = f"; among {among}, a sentence finds its own first in {first:.0f} % of cases"
    return (
        f"done: validation BLEU-4 {scores['bleu_4']:.1f}, CIDEr-D {scores['cider']:.1f}, "
        f"{scores['distinct']} of {scores['images']} captions distinct; next-word probabilities are off by "
        f"{calibrated['error']:.1f} points on average, {calibrated['error_before']:.1f} before calibration{sure}{found}"
    )


def weigh_evidence(checkpoint: Checkpoint, validation: Validation) -> dict[str, Any]:
    """Give the checkpoint the weight of evidence with the best CIDEr-D on validation pictures; its scores."""
    model, found = checkpoint.model, []
    for weight in EVIDENCE if model.decoder.words.size else (0.0,):
        model.config = replace(model.config, evidence=weight)
        found.append((validation.scores(checkpoint), model.config))
    scores, model.config = max(found, key=lambda each: each[0]["cider"])
    return scores
