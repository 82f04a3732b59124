"""From pictures and captions to a checkpoint, in up to three stages.

Doors: `run` (train), `config` (TrainConfig), `folder` (where a run stands).
"""
