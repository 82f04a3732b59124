"""The processes of one training run: `torchrun` starts them, torch.distributed lets them talk.

Every rank holds the same weights and goes through the same batches in the same order, but takes only its share of
each, and gradients are averaged over the ranks. So N ranks train what one would, at the same batch size. Alone, a run
is one rank of one, and everything here is the identity.
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

from captioner.errors import TrainingError

TIMEOUT = timedelta(minutes=10)  # of a rank that says nothing; one that dies is noticed at once


@dataclass(frozen=True)
class Ranks:
    """How many processes train together, and which of them this one is."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the rank that talks to people and writes files."""
        return self.rank == 0

    def share(self, number: int) -> Tensor:
        """Which of `number` things are this rank's: every size-th, (n,) int64"""
        return torch.arange(number)[self.rank :: self.size]

    def own_randomness(self) -> None:
        """From here on other random numbers than the other ranks', who began with the same seed."""
        if not self.first:
            torch.manual_seed(torch.initial_seed() + self.rank)

    def objective(self, networks: Iterable[nn.Module], loss: Callable[..., tuple[Tensor, ...]]) -> nn.Module:
        """`loss` as a module, whose gradients with respect to the networks' weights are averaged over the ranks."""
        module: nn.Module = _Objective(networks, loss)
        if self.size > 1:
            with warnings.catch_warnings():
                # torch 2.13 calls it forward_sync_buffers, which those before do not know. Buffers are statistics
                # that nobody changes.
                warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
                # To look for weights that were not used keeps the order of sums the same in every step, so that a
                # run that was resumed gives the bits of one that was not.
                module = nn.parallel.DistributedDataParallel(
                    module, broadcast_buffers=False, find_unused_parameters=True
                )
        return module

    def sum(self, *values: float | Tensor) -> list[float]:
        """The sum of each value over all ranks."""
        total = torch.stack([torch.as_tensor(v, dtype=torch.float64, device=self.device).detach() for v in values])
        if self.size > 1:
            distributed.all_reduce(total)
        return total.tolist()

    def gather(self, rows: Tensor, number: int) -> Tensor:
        """Rows (n, ...) that each rank made of its share of `number` things, as those of all, (number, ...)."""
        if self.size == 1:
            return rows
        most = -(-number // self.size)
        mine = torch.zeros(most, *rows.shape[1:], dtype=rows.dtype, device=self.device)
        mine[: len(rows)] = rows
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(parts, mine)
        return torch.stack(parts, 1).flatten(0, 1)[:number].to(rows.device)

    def gather_texts(self, texts: Sequence[str], number: int) -> list[str]:
        """Texts that each rank made of its share of `number` things, as those of all."""
        if self.size == 1:
            return list(texts)
        content = torch.frombuffer(bytearray(json.dumps(texts).encode()), dtype=torch.uint8)
        lengths = self.gather(torch.tensor([len(content)]), self.size).tolist()
        padded = torch.zeros(1, max(lengths), dtype=torch.uint8)
        padded[0, : len(content)] = content
        parts = [
            json.loads(bytes(row[:length].tolist()))
            for row, length in zip(self.gather(padded, self.size), lengths, strict=True)
        ]
        return [parts[place % self.size][place // self.size] for place in range(number)]

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors, in place, by what the first rank has in them."""
        if self.size == 1:
            return
        for tensor in tensors:
            there = tensor.detach().to(self.device).contiguous()
            distributed.broadcast(there, 0)
            with torch.no_grad():
                tensor.copy_(there)

    def from_first(self, tensors: dict[str, Tensor], content: Any) -> tuple[dict[str, Tensor], Any]:
        """Named tensors and something that JSON can hold, as the first rank has them; what others give is ignored."""
        if self.size == 1:
            return tensors, content
        layout = [[name, list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in tensors.items()]
        [text] = self.gather_texts([json.dumps([layout, content])], self.size)[:1]
        layout, content = json.loads(text)
        if not self.first:
            tensors = {name: torch.empty(shape, dtype=getattr(torch, dtype)) for name, shape, dtype in layout}
        self.same(tensors.values())
        return tensors, content


class _Objective(nn.Module):
    """Networks with a loss as their forward pass: what DistributedDataParallel wraps."""

    def __init__(self, networks: Iterable[nn.Module], loss: Callable[..., tuple[Tensor, ...]]) -> None:
        super().__init__()
        self._networks, self._loss = nn.ModuleList(networks), loss
        # Or DistributedDataParallel would tell in every epoch that it looked for unused weights in vain.
        self._unused = nn.Parameter(torch.zeros(()))

    def forward(self, *batch: Any) -> tuple[Tensor, ...]:
        return self._loss(*batch)


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """The ranks that torchrun has started, of which this process is one; without torchrun one rank of one.

    Raises TrainingError within the block when another rank is gone: what was saved is still there.
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
    except RuntimeError as error:  # of gloo, of nccl, or of a DistributedDataParallel that talked to them
        if not _of_connection(error):
            raise
        raise TrainingError(
            f"process {distributed.get_rank()} lost another of the run's {distributed.get_world_size()}, which died or "
            "cannot be reached: its own message says why; the state that was saved last is still there, and the same "
            "command with --resume goes on from it"
        ) from error
    finally:
        distributed.destroy_process_group()


def _of_connection(error: RuntimeError) -> bool:
    text = str(error)
    return isinstance(error, distributed.DistError) or any(word in text for word in ("gloo", "Connection", "NCCL"))
