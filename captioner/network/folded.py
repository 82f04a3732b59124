"""The encoder as it is trained: the same function of the same weights, computed in fewer and faster steps.

BatchNorm's statistics are fixed, so it is a scale and a shift a channel, and both can go into the convolution before
it at every step: scale (W * x) + shift = (scale W) * x + shift. Gradients reach the convolution's weights and
BatchNorm's scale and bias as before; what is saved is two passes over each picture's largest arrays.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from captioner.network.model import Encoder


def folded_for_training(encoder: Encoder) -> nn.Module:
    """A module (B, 3, S, S) -> (B, F) that shares the encoder's weights, BatchNorm folded into convolutions.

    How much faster it trains, `python benchmarks/finetuning.py` measures.
    """
    traced = fx.symbolic_trace(encoder.backbone)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        norm, convolution = modules[node.target], modules.get(str(before.target))
        if isinstance(norm, nn.BatchNorm2d) and isinstance(convolution, nn.Conv2d) and len(before.users) == 1:
            name = f"{before.target}_folded"
            traced.add_submodule(name, FoldedConvolution(convolution, norm))
            with traced.graph.inserting_before(node):
                folded = traced.graph.call_module(name, before.args)
            node.replace_all_uses_with(folded)
            traced.graph.erase_node(node)
            traced.graph.erase_node(before)
    traced.recompile()
    return traced.eval()


class FoldedConvolution(nn.Module):
    """A convolution followed by a BatchNorm whose statistics are fixed, as one convolution."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.convolution, self.norm = convolution, norm
        size = convolution.kernel_size[0]
        self._halving_depthwise = (
            convolution.groups == convolution.in_channels == convolution.out_channels
            and convolution.stride == (2, 2)
            and convolution.kernel_size == (size, size)
            and size % 2 == 1
            and convolution.padding == (size // 2, size // 2)
            and convolution.dilation == (1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')"""
        conv, norm = self.convolution, self.norm
        assert norm.running_mean is not None  # what "fixed" means
        assert norm.running_var is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        weight, bias = conv.weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale
        if conv.bias is not None:
            bias = bias + conv.bias * scale
        if self._halving_depthwise and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            low = torch.get_autocast_dtype("cpu")
            return halving_depthwise(x.to(low), weight.to(low), bias.to(low))
        return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def halving_depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A depthwise convolution (B, C, H, W) -> (B, C, H / 2, W / 2), halves rounded up: see `_HalvingDepthwise`."""
    result: Tensor = _HalvingDepthwise.apply(x, weight, bias)  # type: ignore[no-untyped-call]  # torch's
    return result


class _HalvingDepthwise(torch.autograd.Function):
    """A depthwise convolution with stride 2 whose gradient is fast on a processor in bfloat16.

    oneDNN has no fast kernel for its gradient with respect to the input: in MobileNetV2 four such layers took half
    of the whole step. That gradient is also a depthwise convolution with stride 1, for which it has one: of the
    output's gradient with zeros between, with the kernel turned round (Dumoulin and Visin 2016, "A guide to
    convolution arithmetic for deep learning", section 4).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, 2, weight.shape[-1] // 2, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        channels, padding = len(weight), weight.shape[-1] // 2
        spread = torch.zeros_like(x)
        spread[:, :, ::2, ::2] = gradient
        of_input = F.conv2d(spread, weight.flip(2, 3), None, 1, padding, 1, channels)
        _, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradient, x, weight, [channels], [2, 2], [padding] * 2, [1, 1], False, [0, 0], channels, [False, True, True]
        )
        return of_input, of_weight, of_bias
