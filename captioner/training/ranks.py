"""The processes of one training run, called ranks: `torchrun` starts them, torch.distributed connects them.

All ranks hold the same weights and go through the same batches in the same order. Each computes its share of a batch,
and gradients are averaged over the ranks, so that N ranks train what one rank would. Without torchrun, a run is one
rank of one, and everything here is the identity.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from tqdm import tqdm

from captioner.errors import TrainingError
from captioner.inference.progress import LogLines, progress_bar

TIMEOUT = timedelta(minutes=10)  # for a rank that hangs; one that dies is noticed at once


@dataclass(frozen=True)
class Ranks:
    """How many processes train together, and which of them is this one."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the rank that prints messages and writes files."""
        return self.rank == 0

    def share(self, number: int) -> Tensor:
        """The places of this rank's items among `number` items: every size-th, (n,) int64."""
        return torch.arange(number)[self.rank :: self.size]

    def progress_bar(self, total: int, title: str, unit: str, done: int = 0) -> tqdm[Any] | LogLines:
        """A bar on a terminal, or lines in a log, of the first rank only."""
        return progress_bar(total, title, unit, done, hidden=not self.first)

    def own_randomness(self) -> None:
        """Draw other random numbers from now on than the other ranks, which began with the same seed."""
        if not self.first:
            torch.manual_seed(torch.initial_seed() + self.rank)

    def objective(self, networks: Iterable[nn.Module], loss: Callable[..., tuple[Tensor, ...]]) -> nn.Module:
        """`loss` as a module. Its gradients with respect to the networks' weights are averaged over the ranks."""
        module = nn.ModuleList(networks)
        module.forward = loss
        if self.size == 1:
            return module
        # One weight that is never used, or DistributedDataParallel would warn that all of them were.
        module.register_parameter("unused", nn.Parameter(torch.zeros((), device=self.device)))
        with warnings.catch_warnings():
            # torch 2.13 renamed this argument to forward_sync_buffers, which older versions do not know. Buffers need
            # no broadcast, because they never change.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            # Looking for unused weights keeps the order of additions the same in every step. Without it, a resumed run
            # would not end with the same bits.
            return nn.parallel.DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=True)

    def sum(self, *values: float | Tensor) -> list[float]:
        """The sum of each value over all ranks."""
        total = torch.stack([torch.as_tensor(v, dtype=torch.float64, device=self.device).detach() for v in values])
        if self.size > 1:
            distributed.all_reduce(total)
        return total.tolist()

    def gather(self, rows: Tensor, number: int) -> Tensor:
        """Rows (n, ...) that each rank computed for its `share` of `number` items -> the rows of all (number, ...)."""
        if self.size == 1:
            return rows
        most = -(-number // self.size)
        mine = torch.zeros(most, *rows.shape[1:], dtype=rows.dtype, device=self.device)
        mine[: len(rows)] = rows
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(parts, mine)
        return torch.stack(parts, 1).flatten(0, 1)[:number].to(rows.device)

    def gather_texts(self, texts: Sequence[str], number: int) -> list[str]:
        """Texts that each rank made for its `share` of `number` items -> the texts of all items."""
        content = json.dumps(texts).encode()
        longest = int(self.gather(torch.tensor([len(content)]), self.size).max())
        row = torch.frombuffer(bytearray(content.ljust(longest)), dtype=torch.uint8)  # JSON may end with spaces
        parts = [json.loads(part.numpy().tobytes()) for part in self.gather(row[None], self.size)]
        return [parts[place % self.size][place // self.size] for place in range(number)]

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors in place with those of the first rank."""
        for tensor in tensors if self.size > 1 else ():
            there = tensor.detach().to(self.device).contiguous()
            distributed.broadcast(there, 0)
            with torch.no_grad():
                tensor.copy_(there)

    def from_first(self, tensors: dict[str, Tensor], content: Any) -> tuple[dict[str, Tensor], Any]:
        """The first rank's named tensors and JSON content, on every rank. What other ranks pass in is ignored."""
        layout = [[name, list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in tensors.items()]
        [text] = self.gather_texts([json.dumps([layout, content])], self.size)[:1]
        layout, content = json.loads(text)
        if not self.first:
            tensors = {name: torch.empty(shape, dtype=getattr(torch, dtype)) for name, shape, dtype in layout}
        self.same(tensors.values())
        return tensors, content


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the ranks that torchrun has started; without torchrun, give one rank of one.

    Raises TrainingError when another rank is lost within the block.
    """
    cuda = torch.cuda.is_available()
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield Ranks(device=torch.device("cuda" if cuda else "cpu"))
        return
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=TIMEOUT)
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), device)
    except RuntimeError as error:  # from gloo or nccl, directly or through DistributedDataParallel
        words = ("gloo", "Connection", "NCCL")
        if not isinstance(error, distributed.DistError) and not any(word in str(error) for word in words):
            raise
        raise TrainingError(
            f"process {distributed.get_rank()} has lost contact with another of the {distributed.get_world_size()} "
            "processes of this run: see the message of that process; the last saved state is kept, and --resume "
            "continues from it"
        ) from error
    finally:
        distributed.destroy_process_group()
