"""One process of a run that a test has torchrun start: `torchrun ... rank.py TASK.json`. Not a test itself.

The task holds what `train` is given, and what shall happen: `exact` computes everything in float64, `losses` is a file
for the loss of every step, `die` a rank, the step after which it dies, and the signal that kills it. `text` is a file
of captions without pictures.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

import captioner.training.words
from captioner.data.captions import read_captions
from captioner.data.splits import Split, find_examples, read_split_list
from captioner.data.texts import read_texts
from captioner.errors import CaptionerError
from captioner.inference import torch_engine
from captioner.network import encoder
from captioner.network.checkpoint import Checkpoint
from captioner.training import stages
from captioner.training.config import TrainConfig
from captioner.training.first import Start
from captioner.training.optimiser import Optimiser
from captioner.training.run import train_on
from captioner.training.start import Material


def main() -> int:
    """Train; print what the first rank says."""
    task = json.loads(Path(sys.argv[1]).read_text())
    if task.get("exact"):
        compute_in_float64()
    losses: list[float] = []
    plain = Optimiser.step

    def step(self: Optimiser, loss: Tensor) -> None:
        # What each rank is given is as large as the batch's loss on average, see `Ranks`.
        mean = loss.detach().double()
        if distributed.is_initialized():
            distributed.all_reduce(mean)
            mean /= distributed.get_world_size()
        losses.append(mean.item())
        plain(self, loss)
        rank, steps, number = task.get("die", (None, 0, 0))
        if os.environ.get("RANK") == str(rank) and len(losses) == steps:
            os.kill(os.getpid(), number)

    Optimiser.step = step  # type: ignore[method-assign]
    captions, images, *lists = (Path(path) for path in task["shapes"])
    examples = read_captions(captions).captions
    learn, validate = (find_examples(examples, images, read_split_list(names)) for names in lists)
    if task.get("other") and os.environ["RANK"] == "1":
        learn = learn[1:]
    split = Split(learn, validate, {"captions": "shapes", "pictures": len(learn)})
    config = TrainConfig(**task["config"])
    captioner.training.words._STEPS = 20  # fitted in no time
    texts = read_texts(Path(task["text"])) if "text" in task else None
    try:
        train_on(
            split,
            Path(task["output"]),
            config,
            Start(Path(task["weights"])),
            bool(task.get("resume")),
            lambda line: print(line, flush=True),
            seconds_between_states=0.0,
            texts=texts,
        )
    except CaptionerError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        return 130
    if "losses" in task and os.environ.get("RANK", "0") == "0":
        Path(task["losses"]).write_text(json.dumps(losses))
    return 0


def compute_in_float64() -> None:
    """Everything that torch would compute in a smaller type."""
    torch.set_default_dtype(torch.float64)
    Tensor.float = Tensor.double  # type: ignore[method-assign]
    import captioner.inference.captioner
    import captioner.training.finish
    import captioner.training.run
    import captioner.training.start

    captioner.inference.torch_engine.computing_type = lambda *_: torch.float64
    captioner.training.start.native_bfloat16 = lambda _: False
    features = Material.features
    Material.features = lambda self: features(self).double()  # type: ignore[method-assign]
    load_checkpoint = captioner.training.run.load_checkpoint

    def load_in_float64(*arguments: Any) -> Checkpoint:
        checkpoint = load_checkpoint(*arguments)
        checkpoint.model.double()
        return checkpoint

    captioner.training.run.load_checkpoint = captioner.training.finish.load_checkpoint = load_in_float64
    for module in (torch_engine, stages):
        module.normalise = lambda *given: encoder.normalise(*given).double()  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
