"""Draw the figures of recurrent-networks.md. The script trains the small networks that they show.

    python docs/recurrent_plots.py

The networks train on a recall task. A sentence is a key word, n - 1 words of noise, a question mark, and the key word
again. Only the last word can be predicted, and only from a state that kept the key for n steps.
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from captioner.inference.decoding import decode
from captioner.inference.rules import Rules
from captioner.inference.torch_engine import TorchSteps
from captioner.network.checkpoint import Checkpoint, load_checkpoint
from captioner.network.header import find_checkpoint
from captioner.network.model import Decoder, ModelConfig
from captioner.options import DecodeOptions
from captioner.vocab import PAD, START, UNK

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

KEYS, NOISE = range(4, 12), range(12, 16)
QUESTION = START
CHANCE = math.log(len(KEYS))
# Okabe and Ito's colours. Colour-blind people can tell them apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"


def recall_sentences(batch: int, n: int, generator: torch.Generator) -> Tensor:
    """Draw sentences of the task, (batch, n + 2) int64. The key is n steps before the step that has to recall it."""
    key = torch.randint(KEYS.start, KEYS.stop, (batch, 1), generator=generator)
    noise = torch.randint(NOISE.start, NOISE.stop, (batch, n - 1), generator=generator)
    return torch.cat([key, noise, torch.full_like(key, QUESTION), key], 1)


def small_decoder(cell: str) -> Decoder:
    """Make captioner's decoder with 48 hidden units. Its fresh weights are the same on every call."""
    torch.manual_seed(0)
    return Decoder(ModelConfig("none", NOISE.stop, 48, 16, dropout=0.0, cell=cell, layers=1), 1)


def recall_loss(decoder: Decoder, sentences: Tensor, k: int | None = None) -> Tensor:
    """Return the cross-entropy of the last word of (B, T), (). With `k`, the gradient is cut every k steps."""
    state = decoder.zero_state(len(sentences))
    for tokens in sentences[:, :-1].split(k or sentences.shape[1], 1):
        state = tuple(part.detach() for part in state)  # keeps its values, forgets its history
        hidden, state = decoder.read(tokens, state)
    return F.cross_entropy(decoder.logits(hidden[:, -1]), sentences[:, -1])


def train_to_recall(cell: str, n: int, steps: int, k: int | None = None) -> tuple[Decoder, list[float]]:
    """Train a decoder on the task by BPTT, or by truncated BPTT with `k`. Returns it and the loss at each step."""
    decoder, generator = small_decoder(cell), torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=0.01)
    losses = []
    for _ in range(steps):
        loss = recall_loss(decoder, recall_sentences(64, n, generator), k)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    return decoder, losses


def gradient_norms(decoder: Decoder, sentences: Tensor) -> list[float]:
    """Return the gradient norms of the last word's loss at the states 0, 1, 2, ... steps before, relative to the first.

    The state is everything that a step hands to the next one: h, and c where the cell has one.
    """
    state = decoder.zero_state(len(sentences))
    states = []
    for tokens in sentences[:, :-1].T:
        _, state = decoder.step(tokens, state)
        states.append(state)
    loss = F.cross_entropy(decoder.logits(state[0][-1]), sentences[:, -1])
    parts = [part for state in reversed(states) for part in state]
    gradients = torch.autograd.grad(loss, parts, allow_unused=True, materialize_grads=True)
    norms = [torch.cat(group).norm().item() for group in zip(*[iter(gradients)] * len(state), strict=True)]
    return [norm / norms[0] for norm in norms]


def train_by_plain_descent(rate: float, tau: float | None, steps: int) -> tuple[list[float], list[float]]:
    """Train an rnn-relu as a language model of the task's sentences. Returns losses and unclipped gradient norms.

    There is no momentum or scaling, so the length of each step depends only on the gradient, clipped to `tau`. Training
    ends early when the loss explodes.
    """
    decoder, generator = small_decoder("rnn-relu"), torch.Generator().manual_seed(1)
    optimiser = torch.optim.SGD(decoder.parameters(), lr=rate)
    losses: list[float] = []
    norms: list[float] = []
    while len(losses) < steps and (not losses or losses[-1] < 1e6):
        sentences = recall_sentences(32, 30, generator)
        hidden, _ = decoder.read(sentences[:, :-1], decoder.zero_state(len(sentences)))
        loss = F.cross_entropy(decoder.logits(hidden).flatten(0, 1), sentences[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(decoder.parameters(), math.inf if tau is None else tau).item())
        losses.append(loss.item())
        optimiser.step()
    return losses, norms


@dataclass(frozen=True)
class Draws:
    """The captions drawn at one temperature."""

    captions: list[str]
    distinct_words: int


def average_picture(decoder: Decoder) -> Tensor:
    """Return the mean feature of the pictures that the decoder was trained on, (1, F)."""
    return decoder.feature_mean.unsqueeze(0)


def next_words(checkpoint: Checkpoint, written: str) -> tuple[list[str], Tensor]:
    """Return the ten likeliest words after `written`, for the average picture, and all logits, (V,), descending."""
    decoder, vocabulary = checkpoint.model.decoder, checkpoint.vocabulary
    with torch.inference_mode():
        tokens = torch.tensor([[START, *vocabulary.encode(written)]])
        logits = decoder(average_picture(decoder), tokens)[0, -1]
        logits[[PAD, START, UNK]] = -torch.inf  # these are never written
        logits, ids = logits.sort(descending=True)
    return [vocabulary.words[id] for id in ids[:10].tolist()], logits


def draw(checkpoint: Checkpoint, temperature: float, number: int) -> Draws:
    """Draw captions for the average picture."""
    decoder = checkpoint.model.decoder
    options = DecodeOptions("sample", temperature=temperature, num_captions=number)
    with torch.inference_mode():
        state = decoder.init_state(average_picture(decoder))
    [drawn] = decode(TorchSteps(decoder), state, 1, Rules(options))
    captions = [checkpoint.vocabulary.decode(hypothesis.tokens) for hypothesis in drawn]
    return Draws([" ".join(words) for words in captions], len({word for words in captions for word in words}))


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Return the mean of each value and of up to width - 1 values before it."""
    return [sum(part) / len(part) for part in (values[max(0, i + 1 - width) : i + 1] for i in range(len(values)))]


# --- figures ---


def draw_vanishing(left: Axes, right: Axes) -> None:
    far = recall_sentences(64, 40, torch.Generator().manual_seed(2))
    for cell, colour, style in (("rnn", ORANGE, "-"), ("gru", GREEN, "--"), ("lstm", BLUE, "-.")):
        trained, losses = train_to_recall(cell, 11, 900)
        print(f"{cell}: loss {sum(losses[-50:]) / 50:.3f} after training, {CHANCE:.2f} by guessing")
        for axes, decoder in ((left, small_decoder(cell)), (right, trained)):
            norms = gradient_norms(decoder, far)
            print(f"  gradient norm 40 steps back: {norms[40]:.1e}")
            axes.semilogy(norms, style, color=colour, label=cell)
    left.set(title="before training", ylabel="gradient norm (1 at k = 0)")
    right.set(title="trained to recall a word 11 steps back")
    for axes in (left, right):
        axes.set(xlabel="k steps back", ylim=(1e-13, 1e2))
        axes.legend(loc="lower left")


def draw_clipping(left: Axes, right: Axes) -> None:
    runs = ((0.1, 1.0, BLUE, "-"), (0.05, None, GREEN, "--"), (0.1, None, ORANGE, "o-"))
    for rate, tau, colour, style in runs:
        losses, norms = train_by_plain_descent(rate, tau, 60)
        label = f"rate {rate:g}, " + ("not clipped" if tau is None else f"clipped to {tau:g}")
        print(f"{label}: loss {losses[-1]:.3g} after {len(losses)} steps, largest norm {max(norms):.3g}")
        left.semilogy(norms, style, color=colour, label=label, markersize=4)
        right.semilogy(losses, style, color=colour, label=label, markersize=4)
    left.set(title="gradient norm, before clipping", ylim=(0.05, 1e6))
    right.set(title="loss a word (nats)", ylim=(1, 1e4))
    for axes in (left, right):
        axes.set(xlabel="training step")
        axes.legend(loc="upper right")


def draw_truncation(left: Axes, right: Axes) -> None:
    for axes, cell in ((left, "rnn"), (right, "gru")):
        for k, colour, style in ((3, ORANGE, "-"), (6, GREEN, "--"), (12, BLUE, "-.")):
            _, losses = train_to_recall(cell, 11, 500, k)
            print(f"{cell}, k = {k}: loss {sum(losses[-50:]) / 50:.3f} after training")
            axes.plot(smooth(losses, 20), style, color=colour, label=f"k = {k}")
        axes.axhline(CHANCE, color=GREY, linewidth=0.8)
        axes.text(500, CHANCE + 0.04, "guessing", color=GREY, ha="right")
        axes.set(title=f"{cell}: the key is 11 steps back", xlabel="training step", ylim=(0, 2.5))
    left.set(ylabel="loss of the recalled word (nats)")
    right.legend(loc="center right")


def draw_temperature(left: Axes, right: Axes) -> None:
    checkpoint = load_checkpoint(find_checkpoint())
    written = "a man in a"
    words, logits = next_words(checkpoint, written)
    for place, (temperature, colour) in enumerate(((0.5, BLUE), (1.0, GREEN), (2.0, ORANGE))):
        shares = (logits.double() / temperature).softmax(0)
        entropy = -(shares * shares.log()).nansum() / math.log(2)
        print(f"after '{written}', temperature {temperature}: entropy {entropy:.1f} bits")
        at = [index + 0.27 * (place - 1) for index in range(len(words))]
        left.bar(at, shares[:10].tolist(), 0.27, color=colour, label=f"{temperature:g} ({entropy:.1f} bits)")
    left.set_xticks(range(len(words)), words, rotation=45, ha="right", rotation_mode="anchor")
    left.set(title=f'the next word after "{written}"', ylabel="probability")
    left.legend(title="temperature (entropy)")

    temperatures = [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0]
    draws = [draw(checkpoint, temperature, 200) for temperature in temperatures]
    for temperature, drawn in zip(temperatures, draws, strict=True):
        middle = drawn.captions[100]  # the captions are in order of probability
        print(f"temperature {temperature}: {drawn.distinct_words} words; {middle}")
    right.plot(temperatures, [drawn.distinct_words for drawn in draws], "o-", color=BLUE)
    right.set(title="different words in 200 captions", xlabel="temperature", ylim=(0, None))


FIGURES = {
    "vanishing": draw_vanishing,
    "clipping": draw_clipping,
    "truncation": draw_truncation,
    "temperature": draw_temperature,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the figures of docs/recurrent-networks.md.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "images", help="folder for the figures")
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"figures to draw: {', '.join(FIGURES)} [all]")
    arguments = parser.parse_args()
    if unknown := set(arguments.figures) - FIGURES.keys():
        parser.error(f"unknown figures: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)  # these networks are so small that a second thread would only wait
    pyplot.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True})
    pyplot.rcParams.update({"grid.color": "#dddddd", "axes.axisbelow": True, "legend.frameon": False})
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.figures or FIGURES:
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
        FIGURES[name](left, right)
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=110)
        pyplot.close(figure)
        # A palette is enough for so few colours, and it makes the file much smaller.
        Image.open(drawn).convert("RGB").quantize(64).save(arguments.output / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
