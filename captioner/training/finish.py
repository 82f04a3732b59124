"""The end of a run: a checkpoint with honest probabilities, and with the scores of exactly what it stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from captioner.network.checkpoint import Checkpoint, half_precision, load_checkpoint, save_checkpoint
from captioner.options import DecodeOptions
from captioner.training.calibration import calibration, divide_logits, fit_temperature
from captioner.training.records import write_reliability
from captioner.training.validation import Validation

CHECKPOINT_NAME = "best.safetensors"
MOST_CALIBRATION_ERROR = 2.0  # points; the probabilities of a checkpoint that is further off are mended


def finish(output: Path, validation: Validation, made: dict[str, Any]) -> str:
    """Calibrate the checkpoint in the run folder, store its scores and how it was `made`; return a line about them.

    One that has been finished before stays as it is.
    """
    path = output / CHECKPOINT_NAME
    checkpoint = load_checkpoint(path)
    if "validation" not in checkpoint.provenance:
        calibrated = _calibrate(checkpoint, validation, output / "reliability.png")
        scores = validation.scores(checkpoint)
        del scores["samples"]
        checkpoint.provenance = {
            **made,
            "calibration": calibrated,
            "validation": {**scores, "decoding": DecodeOptions().used(), "precision": validation.precision},
        }
        save_checkpoint(path, checkpoint)
    scores, calibrated = (checkpoint.provenance[name] for name in ("validation", "calibration"))
    return (
        f"done: validation BLEU-4 {scores['bleu_4']:.1f}, CIDEr-D {scores['cider']:.1f}, "
        f"{scores['distinct']} of {scores['images']} captions distinct; next-word probabilities are off by "
        f"{calibrated['error']:.1f} points on average, {calibrated['error_before']:.1f} before calibration"
    )


def _calibrate(checkpoint: Checkpoint, validation: Validation, plot: Path) -> dict[str, float]:
    """Divide the network's logits by a temperature where its probabilities are off; say and draw what was done."""
    decoder, batches = checkpoint.model.decoder, validation.batches(checkpoint)
    before = after = calibration(decoder, batches)
    temperature = 1.0
    if before.error > MOST_CALIBRATION_ERROR:
        temperature = fit_temperature(decoder, batches)
        divide_logits(decoder, temperature)
        checkpoint.model.load_state_dict(half_precision(checkpoint.model))
        after = calibration(decoder, batches)
    write_reliability(plot, before, after)
    return {"temperature": temperature, "error_before": before.error, "error": after.error}
