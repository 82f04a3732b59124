"""Convolutions that are computed together with the layers around them, for inference and for training.

A layer such as ReLU6 costs hardly any arithmetic, but on its own it reads and writes a whole feature map. oneDNN
applies it to the values that a convolution has just computed, while they are in the processor's registers. torch's
compiler calls the same operators; without the compiler they need no other program on the user's machine.
Shapes: B pictures, C and C' channels, H and W pixels, S image side, F feature.
"""

from __future__ import annotations

import copy
import math
import operator
import platform
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from captioner.network.encoder import Encoder, channels_last

_ACTIVATIONS: dict[type, tuple[str, list[float]]] = {  # what oneDNN calls them, and their constants
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.Hardswish: ("hardswish", []),
    nn.SiLU: ("swish", []),
}
_FROM_OUTPUT = {"relu": math.inf, "hardtanh": 6.0}  # their gradient is 1 where the output is above 0 and below this
_NONE: tuple[str, list[float]] = ("none", [])
_SUMS = (operator.add, operator.iadd)


def folded_for_inference(encoder: Encoder) -> fx.GraphModule:
    """A faster copy of the encoder, for inference only: BatchNorm is folded into the convolutions, channels come last.

    It computes the same (B, 3, S, S) -> (B, F), but its weights no longer fit a checkpoint. `python
    benchmarks/encoder.py` measures how much faster it is.
    """
    traced = fx.symbolic_trace(copy.deepcopy(encoder.backbone))
    modules: dict[str, Any] = dict(traced.named_modules())
    for node in _normalised(traced, modules):
        convolution, norm = modules[str(node.target)], modules[str(node.next.target)]
        _merge(traced, node.next, node)
        traced.set_submodule(str(node.target), fuse_conv_bn_eval(convolution, norm))
    return channels_last(_tidied(traced).eval().requires_grad_(False))


def fused_for_inference(network: fx.GraphModule) -> fx.GraphModule:
    """Change a network in place, so that it computes the same faster. It is left as it is where torch has no oneDNN.

    A convolution takes in the zeros that are padded before it, and the activation or the sum after it. The network can
    then not be moved to another device or type.
    """
    if not _supported(next(network.parameters()).dtype):
        return network
    modules = dict(network.named_modules())
    for node in list(network.graph.nodes):
        if not _calls(node, modules, nn.Conv2d) or not _is_plain(modules[node.target]):
            continue
        convolution, after = modules[node.target], node.next
        padding, activation = _padding(network, node, modules), _activation(network, node, modules)
        # What comes next in the graph, so that nothing can change the other summand in between.
        if activation is _NONE and list(node.users) == [after] and after.target in _SUMS:
            others = [summand for summand in after.args if isinstance(summand, fx.Node) and summand is not node]
            if others:
                node.args = (*node.args, *others)
                _merge(network, after, node)
        network.set_submodule(node.target, FusedConvolution(convolution, padding, activation))
    return _tidied(network)


class FusedConvolution(nn.Module):
    """A convolution after padding and before an activation or a sum, computed by oneDNN in one go."""

    def __init__(self, c: nn.Conv2d, padding: nn.ZeroPad2d | None, activation: tuple[str, list[float]]) -> None:
        super().__init__()
        late, around = _shift(c, padding)
        self._weight, self._bias = _shifted(c.weight.detach(), late), None if c.bias is None else c.bias.detach()
        self._place: Any = (around, list(c.stride), list(c.dilation), c.groups)
        self._after = (*activation, "")
        self._packed: dict[int, Tensor] = {}  # by the number of threads, on which oneDNN's order depends

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W'), to which `other`, of the same shape, is added"""
        operators, weight = torch.ops.mkldnn, self._weight
        if len(x) == 1:  # putting the weights in oneDNN's order takes about as long as computing, then
            if (threads := torch.get_num_threads()) not in self._packed:
                packed = operators._reorder_convolution_weight(weight, *self._place, list(x.shape))
                self._packed[threads] = packed
            weight = self._packed[threads]
        if other is None:
            return _convolution(x, weight, self._bias, self._place, self._after)
        add: Any = ("add", 1.0, None, [], None)
        return cast(Tensor, operators._convolution_pointwise.binary(x, other, weight, self._bias, *self._place, *add))


def folded_for_training(encoder: Encoder) -> nn.Module:
    """A module (B, 3, S, S) -> (B, F) that shares the encoder's weights but folds BatchNorm into the convolutions.

    `python benchmarks/finetuning.py` measures how much faster it trains.
    """
    traced = fx.symbolic_trace(encoder.backbone)
    modules: dict[str, Any] = dict(traced.named_modules())
    for node in _normalised(traced, modules):
        convolution, norm = modules[str(node.target)], modules[str(node.next.target)]
        _merge(traced, node.next, node)
        padding, activation = _padding(traced, node, modules), _activation(traced, node, modules, *_FROM_OUTPUT)
        traced.set_submodule(str(node.target), FoldedConvolution(convolution, norm, padding, activation))
    return _tidied(traced).eval()


class FoldedConvolution(nn.Module):
    """A convolution and a BatchNorm whose statistics are fixed, as one convolution, which keeps the weights of both.

    A layer that pads with zeros may come before them, and an activation after them.
    """

    def __init__(
        self,
        convolution: nn.Conv2d,
        norm: nn.BatchNorm2d,
        padding: nn.ZeroPad2d | None = None,
        activation: tuple[str, list[float]] = _NONE,
    ) -> None:
        super().__init__()
        self.convolution, self.norm, self._activation = convolution, norm, activation
        self._late, self._around = _shift(convolution, padding)
        self._fast = _is_plain(convolution) and _supported(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')"""
        conv, norm = self.convolution, cast(Any, self.norm)  # its statistics are tensors
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        weight, bias = conv.weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale
        if conv.bias is not None:
            bias = bias + conv.bias * scale
        if self._fast and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            weight, low = _shifted(weight, self._late), torch.get_autocast_dtype("cpu")
            place = (self._around, list(conv.stride), list(conv.dilation), conv.groups)
            after = (*self._activation, "")
            return cast(Tensor, _Convolution.apply(x.to(low), weight.to(low), bias.to(low), place, self._late, after))  # type: ignore[no-untyped-call]  # torch's
        around = self._around
        if self._late:
            x, around = F.pad(x, (around[0] - self._late, around[0]) * 2), 0
        y = F.conv2d(x, weight, bias, conv.stride, around, conv.dilation, conv.groups)
        return y if self._activation == _NONE else F.hardtanh(y, 0.0, _FROM_OUTPUT[self._activation[0]])


class _Convolution(torch.autograd.Function):
    """A convolution with its activation on the CPU in bfloat16, with fast gradients where each channel has a kernel.

    For these, depthwise ones, oneDNN has fast kernels for the forward pass and for the gradient of 3 x 3 weights only:

    - The gradient with respect to the input is also a depthwise convolution, with stride 1: its input is the output's
      gradient, with zeros between the pixels where the stride is 2, and its kernel is turned round (Dumoulin and Visin
      2016, "A guide to convolution arithmetic for deep learning", section 4).
    - The gradient of larger weights is a part of that of a convolution in which up to 16 channels see each other. It is
      many times the arithmetic, but in the matrix products for which processors are made.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, place: Any, late: int, after: Any) -> Tensor:
        y = _convolution(x, weight, bias, place, after)
        ctx.save_for_backward(x, weight, y)
        ctx.place, ctx.late, ctx.activation = place, late, after[0]
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight, y), (around, stride, dilation, groups) = ctx.saved_tensors, ctx.place
        if ctx.activation in _FROM_OUTPUT:
            gradient = torch.ops.aten.hardtanh_backward(gradient, y, 0.0, _FROM_OUTPUT[ctx.activation])
        wanted, of_input = [ctx.needs_input_grad[0], True, True], None
        if fast := _is_depthwise(x, weight, ctx.place, ctx.late):
            if wanted[0]:
                of_input = _of_input(x, weight, gradient, stride[0], ctx.late)
            wanted[0] = False
        if fast and weight.shape[-1] > 3:
            channel, together = torch.arange(len(weight)), math.gcd(len(weight), 16)
            several = weight.new_empty(len(weight), together, *weight.shape[2:])
            several, groups = several.contiguous(memory_format=torch.channels_last), groups // together
        else:
            several = weight
        rest = ([len(weight)], stride, around, dilation, False, [0, 0], groups, wanted)
        found, of_weight, of_bias = torch.ops.aten.convolution_backward(gradient, x, several, *rest)
        if several is not weight:
            of_weight = of_weight[channel, channel % together].unsqueeze(1)
        return of_input if fast else found, of_weight, of_bias, None, None, None


def _is_depthwise(x: Tensor, weight: Tensor, place: Any, late: int) -> bool:
    """Whether `_of_input` computes the gradient of a convolution."""
    around, stride, dilation, groups = place
    size = weight.shape[-1] - late
    alike = tuple(weight.shape) == (groups, 1, *weight.shape[-1:] * 2) and x.shape[1] == groups
    centred = size % 2 == 1 and around == [size // 2] * 2 and late in (0, 1)
    return alike and centred and dilation == [1, 1] and (stride == [2, 2] or (stride == [1, 1] and not late))


def _of_input(x: Tensor, weight: Tensor, gradient: Tensor, stride: int, late: int) -> Tensor:
    """The gradient of a depthwise convolution with respect to its input."""
    if stride == 2:
        spread = torch.zeros_like(x)
        spread[:, :, late::2, late::2] = gradient
        gradient = spread
    kernel = weight[:, :, late:, late:].flip(2, 3)
    return F.conv2d(gradient, kernel, None, 1, kernel.shape[-1] // 2, 1, len(weight))


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, place: Any, after: Any) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *place, *after))


def _supported(dtype: torch.dtype) -> bool:
    return computes(dtype, "_convolution_pointwise", "_reorder_convolution_weight")


def computes(dtype: torch.dtype, *operators: str) -> bool:
    """Whether oneDNN has operators and computes in a type. torch has them only under private names.

    Other processors than those of Intel's kind get torch's public operators: nobody has tried these there.
    """
    names = (*operators, "_is_mkldnn_bf16_supported")
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    if not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False
    low = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32 or bool(low)


def _is_plain(convolution: nn.Conv2d) -> bool:
    """Whether it pads with zeros, and says how many."""
    return convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)


def _calls(node: Any, modules: dict[str, Any], *kinds: type) -> bool:
    """Whether a node of the graph calls a layer of exactly one of these kinds."""
    return isinstance(node, fx.Node) and node.op == "call_module" and type(modules[str(node.target)]) in kinds


def _normalised(network: fx.GraphModule, modules: dict[str, Any]) -> list[fx.Node]:
    """The convolutions with nothing but a BatchNorm after them."""
    pairs = ((node, node.next) for node in network.graph.nodes if _calls(node, modules, nn.Conv2d))
    return [node for node, after in pairs if list(node.users) == [after] and _calls(after, modules, nn.BatchNorm2d)]


def _merge(network: fx.GraphModule, gone: fx.Node, stays: fx.Node) -> None:
    """Let one node of the graph take the place of another."""
    gone.replace_all_uses_with(stays)
    network.graph.erase_node(gone)


def _padding(network: fx.GraphModule, node: fx.Node, modules: dict[str, Any]) -> nn.ZeroPad2d | None:
    """Take the layer that pads before a convolution out of the graph, if there is one that the convolution can do."""
    before, convolution = node.args[0], modules[str(node.target)]
    if not (isinstance(before, fx.Node) and _calls(before, modules, nn.ZeroPad2d) and len(before.users) == 1):
        return None
    padding: nn.ZeroPad2d = modules[str(before.target)]
    left, right, *vertical = cast("tuple[int, ...]", padding.padding)
    if [left, right] != vertical or right < left or convolution.padding != (0, 0) or convolution.dilation != (1, 1):
        return None
    node.args = before.args
    network.graph.erase_node(before)
    return padding


def _activation(
    network: fx.GraphModule, node: fx.Node, modules: dict[str, Any], *names: str
) -> tuple[str, list[float]]:
    """Take the activation after a convolution out of the graph, if it is one of those that oneDNN calls `names`."""
    after = node.next
    if list(node.users) == [after] and _calls(after, modules, *_ACTIVATIONS):
        found = _ACTIVATIONS[type(modules[str(after.target)])]
        if not names or found[0] in names:
            _merge(network, after, node)
            return found
    return _NONE


def _tidied(network: fx.GraphModule) -> fx.GraphModule:
    network.delete_all_unused_submodules()
    network.recompile()
    return network


def _shift(convolution: nn.Conv2d, padding: nn.ZeroPad2d | None) -> tuple[int, Any]:
    """How many zeros are padded more at the end than at the beginning, and how many at the end; or as it is."""
    if padding is None:
        return 0, convolution.padding if isinstance(convolution.padding, str) else list(convolution.padding)
    left, right, *_ = cast("tuple[int, ...]", padding.padding)
    return right - left, [right, right]


def _shifted(weight: Tensor, late: int) -> Tensor:
    """Weights for padding that is the same on all sides, as oneDNN wants it, where `late` more are padded at the end.

    As many zeros before the kernel's own weights move it to the same place. (TensorFlow pads one more at the end.)
    """
    return F.pad(weight, (late, 0, late, 0)).contiguous(memory_format=torch.channels_last) if late else weight
