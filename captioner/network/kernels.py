"""Parts of the network that compute the same as parts of torch, but faster. Each is tested against torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captioner.vocab import PAD

_LOGITS = 2**18  # so many at a time stay in the processor's cache


class Dropout(nn.Module):
    """In training, sets units to zero with probability `share` and scales the others up by 1 / (1 - share).

    Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting". torch draws one random
    number for each unit, which is slow; here one draw of 64 bits from the same generator serves four units. The share
    that is dropped is exact to 2^-16.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> (...)"""
        if not self.training or not self.share:
            return x
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        uniform = draws.view(torch.int16)[: x.numel()].view(x.shape)  # from -2^15 to 2^15 - 1
        keep = uniform >= round(self.share * 2**16) - 2**15
        dropped: Tensor = x * keep.to(x.dtype).mul_(1.0 / (1.0 - self.share))
        return dropped


class LSTM(nn.LSTM):
    """torch's LSTM with one layer, batch first: the same weights and the same function, with a faster backward pass.

    i, f, o = sigma(W_x. x_t + b_x. + W_h. h_{t-1} + b_h.); g = tanh(W_xg x_t + b_xg + W_hg h_{t-1} + b_hg);
    c_t = f * c_{t-1} + i * g; h_t = o * tanh(c_t). The rows of the weights are those of i, f, g and o.
    On the CPU torch adds up the gradient of the weights step by step. Here it is one product over all steps at the
    end; `python benchmarks/training.py` measures what that saves.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True)

    def forward(self, inputs: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # type: ignore[override]  # never packed
        """(B, T, D), two (1, B, H) -> (B, T, H), two (1, B, H)"""
        if _one_step(inputs):
            h, c = torch.lstm_cell(inputs[:, 0], (state[0][0], state[1][0]), *_tensors(self))
            return h.unsqueeze(1), (h.unsqueeze(0), c.unsqueeze(0))
        if not torch.is_grad_enabled() or inputs.device.type != "cpu":
            result: tuple[Tensor, tuple[Tensor, Tensor]] = super().forward(inputs, state)
            return result
        low, (w_x, b_x, w_h, b_h) = _weights_for(self, inputs)
        with torch.autocast("cpu", enabled=False):
            gates = F.linear(inputs.transpose(0, 1).to(low), w_x, b_x + b_h)
            first = (part[0].to(low) for part in state)
            hidden, memory = _LSTMSteps.apply(gates, *first, w_h)  # type: ignore[no-untyped-call]  # torch's
        return hidden.transpose(0, 1), (hidden[-1:], memory.unsqueeze(0))


class _LSTMSteps(torch.autograd.Function):
    """The recurrent part: gates from the inputs (T, B, 4H), h_0 and c_0 (B, H) -> h_1 to h_T (T, B, H), c_T (B, H)."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, h_0: Tensor, c_0: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        steps, size = len(gates), h_0.shape[1]
        hidden = gates.new_empty(steps + 1, *h_0.shape)
        memory, squashed, opened = torch.empty_like(hidden), torch.empty_like(hidden[1:]), torch.empty_like(gates)
        hidden[0], memory[0], turned = h_0, c_0, weight.t()
        for t in range(steps):
            torch.addmm(gates[t], hidden[t], turned, out=opened[t])
            i, f, g, o = opened[t].split(size, -1)
            opened[t, :, : 2 * size].sigmoid_()
            g.tanh_()
            o.sigmoid_()
            torch.mul(f, memory[t], out=memory[t + 1]).addcmul_(i, g)
            torch.tanh(memory[t + 1], out=squashed[t])
            torch.mul(o, squashed[t], out=hidden[t + 1])
        ctx.save_for_backward(hidden, memory, squashed, opened, weight)
        return hidden[1:], memory[-1]

    @staticmethod
    def backward(ctx: Any, of_hidden: Tensor, of_memory: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        hidden, memory, squashed, opened, weight = ctx.saved_tensors
        i, f, g, o = opened.split(squashed.shape[-1], -1)
        # Derivatives by i, f, g and o before their nonlinearities: of c_t for the first three, of h_t for o.
        factors = torch.stack([g * i * (1 - i), memory[:-1] * f * (1 - f), i * (1 - g * g), squashed * o * (1 - o)], 2)
        through = o * (1 - squashed * squashed)  # the derivative of h_t by c_t
        found = torch.empty_like(factors)  # (T, B, 4, H)
        back = torch.zeros_like(hidden[0])  # the gradient of h_t that comes through later steps
        for t in reversed(range(len(squashed))):
            back = back + of_hidden[t]
            of_memory = torch.addcmul(of_memory, back, through[t])
            torch.mul(factors[t, :, :3], of_memory[:, None], out=found[t, :, :3])
            torch.mul(factors[t, :, 3], back, out=found[t, :, 3])
            back = found[t].flatten(1) @ weight
            of_memory = of_memory * f[t]
        of_gates = found.flatten(2)
        return of_gates, back, of_memory, of_gates.flatten(0, 1).t() @ hidden[:-1].flatten(0, 1)


def _one_step(inputs: Tensor) -> bool:
    """Whether the inputs (B, T, D) are those of one step of decoding on the CPU.

    For a sequence, torch puts the weights in another order first. That takes longer than a single step.
    """
    plain = not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    return plain and inputs.shape[1] == 1 and inputs.device.type == "cpu"


def _weights_for(layer: nn.RNNBase, inputs: Tensor) -> tuple[torch.dtype, list[Tensor]]:
    """The type to compute in, that of autocast if it is on, and W_x, b_x, W_h and b_h in this type."""
    low = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else inputs.dtype
    w_x, w_h, b_x, b_h = _tensors(layer)
    return low, [weight.to(low) for weight in (w_x, b_x, w_h, b_h)]


def _tensors(layer: nn.RNNBase) -> Iterator[Tensor]:
    """W_x, W_h, b_x and b_h"""
    return map(layer.get_parameter, ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"))


class GRU(nn.GRU):
    """torch's GRU with one layer, batch first, with a faster backward pass: see `LSTM`.

    z, r = sigma(W_x. x_t + b_x. + W_h. h_{t-1} + b_h.); n = tanh(W_xn x_t + b_xn + r * (W_hn h_{t-1} + b_hn));
    h_t = n + z * (h_{t-1} - n). The rows of the weights are those of r, z and n.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True)

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # never packed
        """(B, T, D), (1, B, H) -> (B, T, H), (1, B, H)"""
        if _one_step(inputs):
            h = torch.gru_cell(inputs[:, 0], state[0], *_tensors(self))
            return h.unsqueeze(1), h.unsqueeze(0)
        if not torch.is_grad_enabled() or inputs.device.type != "cpu":
            result: tuple[Tensor, Tensor] = super().forward(inputs, state)
            return result
        low, weights = _weights_for(self, inputs)
        with torch.autocast("cpu", enabled=False):
            gates = F.linear(inputs.transpose(0, 1).to(low), *weights[:2])
            hidden: Tensor = _GRUSteps.apply(gates, state[0].to(low), *weights[2:])  # type: ignore[no-untyped-call]  # torch's
        return hidden.transpose(0, 1), hidden[-1:]


class _GRUSteps(torch.autograd.Function):
    """The recurrent part: the inputs' share of the gates (T, B, 3H) and h_0 (B, H) -> h_1 to h_T (T, B, H)."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, first: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        steps, batch, size = len(gates), *first.shape
        hidden = gates.new_empty(steps + 1, batch, size)
        hidden[0] = first
        rz, n = gates.new_empty(steps, batch, 2 * size), torch.empty_like(hidden[1:])
        products = torch.empty_like(n)  # W_hn h_{t-1} + b_hn
        from_hidden, turned = gates.new_empty(batch, 3 * size), weight.t()
        for t in range(steps):
            torch.addmm(bias, hidden[t], turned, out=from_hidden)
            torch.add(gates[t, :, : 2 * size], from_hidden[:, : 2 * size], out=rz[t]).sigmoid_()
            products[t] = from_hidden[:, 2 * size :]
            torch.addcmul(gates[t, :, 2 * size :], rz[t, :, :size], products[t], out=n[t]).tanh_()
            torch.lerp(n[t], hidden[t], rz[t, :, size:], out=hidden[t + 1])
        ctx.save_for_backward(hidden, rz, n, products, weight)
        return hidden[1:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        hidden, rz, n, products, weight = ctx.saved_tensors
        steps, batch, size = n.shape
        r, z = rz.split(size, -1)
        # Derivatives of h_t by r, z, W_hn h + b_hn and W_xn x + b_xn, all before the nonlinearity: (T, B, 4, H)
        factors = gradient.new_empty(steps, batch, 4, size)
        through_n = torch.mul(1 - z, 1 - n * n, out=factors[:, :, 3])
        torch.mul(through_n, r, out=factors[:, :, 2])
        torch.mul(z * (1 - z), hidden[:-1] - n, out=factors[:, :, 1])
        torch.mul(through_n * products, r * (1 - r), out=factors[:, :, 0])
        found = torch.empty_like(factors)
        back = torch.zeros_like(hidden[0])  # the gradient of h_t that comes through later steps
        for t in reversed(range(steps)):
            back = back + gradient[t]
            torch.mul(factors[t], back[:, None], out=found[t])
            back = torch.addmm(back * z[t], found[t, :, :3].flatten(1), weight)
        of_gates = found[:, :, :3].flatten(2)  # the gradient of W_h h + b_h
        of_weight = of_gates.flatten(0, 1).t() @ hidden[:-1].flatten(0, 1)
        return found[:, :, [0, 1, 3]].flatten(2), back, of_weight, of_gates.sum((0, 1))


def summed_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """`F.cross_entropy` of logits (N, V) with label smoothing, summed over the targets (N,) that are not padding: ()"""
    return cast(Tensor, _CrossEntropy.apply(logits, targets, smoothing))  # type: ignore[no-untyped-call]  # torch's


class _CrossEntropy(torch.autograd.Function):
    """Computes the gradient together with the value, a few rows at a time, which stay in the processor's cache.

    With a large vocabulary, torch spends most of its time on reading and writing (N, V) in float32 several times.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        gradient = torch.empty_like(logits)
        parts, even, exactly = [], smoothing / logits.shape[1], torch.promote_types(logits.dtype, torch.float32)
        rows = max(1, _LOGITS // logits.shape[1]) if logits.device.type == "cpu" else max(1, len(logits))
        for some, those, out in zip(*(t.split(rows) for t in (logits, targets, gradient)), strict=True):
            exact, real = some.to(exactly, copy=True), (those != PAD).to(exactly)[:, None]
            smoothed = (1.0 - smoothing) * exact.gather(1, those[:, None]) + smoothing * exact.mean(-1, keepdim=True)
            most = exact.amax(-1, keepdim=True)
            powers = exact.sub_(most).exp_()
            total = powers.sum(-1, keepdim=True)
            parts.append(((smoothed - most - total.log()) * real).sum())
            # The probabilities minus the smoothed target distribution, and 0 for padding.
            difference = powers.mul_(real / total).sub_(even * real)
            out.copy_(difference.scatter_add_(1, those[:, None], (smoothing - 1.0) * real))
        ctx.save_for_backward(gradient)
        return -torch.stack(parts).sum()

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor, None, None]:
        [gradient] = ctx.saved_tensors
        return gradient.mul_(factor), None, None  # in place: torch allows only one backward pass
