"""Training, in up to three stages: the decoder alone, encoder and decoder end to end, self-critical training.

The run folder holds `config.json`, `metrics.jsonl` (one line an epoch), `curves.png`, `samples.html`,
`best.safetensors` (the checkpoint) and `state.safetensors`, from which an interrupted run goes on.
"""

from captioner.training.finish import CHECKPOINT_NAME
from captioner.training.run import train
from captioner.training.start import Start

__all__ = ["CHECKPOINT_NAME", "Start", "TrainingError", "train"]
