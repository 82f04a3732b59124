"""AdamW with warm-up, cosine decay and gradient clipping, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Named = Mapping[str, nn.Parameter]
_MOMENTS = ("exp_avg", "exp_avg_sq")


class Optimiser:
    """Steps of AdamW (Loshchilov and Hutter 2019) for groups of named parameters, each with its peak learning rate.

    The learning rate warms up over 3 % of the steps, then falls to zero along a cosine. Weight decay applies to
    matrices only, because it does not help biases and BatchNorm's scales.
    """

    def __init__(self, groups: Iterable[tuple[Named, float]], weight_decay: float, clip: float, steps: int) -> None:
        self.named: dict[str, nn.Parameter] = {}
        adamw_groups: list[dict[str, Any]] = []
        for named, peak in groups:
            self.named |= named
            for matrices, decay in ((True, weight_decay), (False, 0.0)):
                params = [weights for weights in named.values() if (weights.ndim > 1) == matrices]
                adamw_groups.append({"params": params, "peak": peak, "weight_decay": decay})
        self._adamw = torch.optim.AdamW(adamw_groups, lr=0.0, fused=True)
        self._clip, self._steps, self.done = clip, steps, 0

    def step(self, loss: Tensor) -> None:
        """Compute the gradients of a scalar loss and take one step."""
        self._adamw.zero_grad()
        loss.backward()
        gradients = [weights.grad for weights in self.named.values() if weights.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if norm > self._clip:  # rarely true, and multiplying by 1 would cost as much
            torch._foreach_mul_(gradients, self._clip / norm)
        warm_up = max(1, round(0.03 * self._steps))
        decay = 0.5 * (1.0 + math.cos(math.pi * (self.done - warm_up) / max(1, self._steps - warm_up)))
        for group in self._adamw.param_groups:
            group["lr"] = group["peak"] * ((self.done + 1) / warm_up if self.done < warm_up else decay)
        self._adamw.step()
        self.done += 1

    def state(self) -> dict[str, Tensor]:
        """Everything that later steps depend on, except the weights and `done`."""
        kept = {name: self._adamw.state[w] for name, w in self.named.items() if w in self._adamw.state}
        return {f"{name}.{moment}": state[moment] for name, state in kept.items() for moment in _MOMENTS}

    def restore(self, state: Mapping[str, Tensor], done: int) -> None:
        """Continue after `done` steps. Raises KeyError when the state belongs to other parameters."""
        self.done = done
        for name, weights in self.named.items() if done else ():
            # The fused step requires the memory layout of the weights.
            moments = {m: torch.empty_like(weights).copy_(state[f"{name}.{m}"]).detach() for m in _MOMENTS}
            # AdamW counts steps in a tensor, to correct the bias of its moments.
            self._adamw.state[weights] = {"step": torch.tensor(float(done), device=weights.device), **moments}


class Average:
    """The exponential moving average of named weights (Polyak and Juditsky 1992).

    Scores of the averaged weights are higher and vary less from epoch to epoch. Early steps are forgotten sooner, so
    that a short run is not averaged with its beginning. Fifty updates in the number of steps that the average reaches
    back are as good as one in every step, and save time.
    """

    def __init__(self, named: Named, steps_back: float) -> None:
        self._weights, self._decay, self._done = named, 1.0 - 1.0 / max(1.0, steps_back), 0
        self._every = max(1, int(steps_back / 50))
        self.averaged = {name: weights.detach().clone() for name, weights in named.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Call this after every step; some of the steps update the average."""
        self._done += 1
        if self._done % self._every:
            return
        decay = min(self._decay, self._done / (self._done + 10)) ** self._every
        torch._foreach_lerp_(list(self.averaged.values()), list(self._weights.values()), 1.0 - decay)

    @torch.no_grad()
    def restore(self, averaged: Mapping[str, Tensor], done: int) -> None:
        """Continue after `done` steps."""
        for name, weights in self.averaged.items():
            weights.copy_(averaged[name])
        self._done = done
