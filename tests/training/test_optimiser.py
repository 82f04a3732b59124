"""The optimiser's schedule, its decay, and that its state brings it back; the average."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captioner.training.optimiser import Average, Optimiser


def weights(value: float = 1.0) -> dict[str, nn.Parameter]:
    return {"matrix": nn.Parameter(torch.full((2, 2), value)), "vector": nn.Parameter(torch.full((2,), value))}


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    named = weights()
    optimiser = Optimiser([(named, 0.5)], 0.0, 1.0, steps=100)
    rates = []
    for _ in range(100):
        optimiser.step(sum(w.sum() for w in named.values()))
        rates.append(optimiser._adamw.param_groups[0]["lr"])
    assert rates[:3] == pytest.approx([0.5 / 3, 1.0 / 3, 0.5])
    assert max(rates) == 0.5
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] < 0.001


def test_only_matrices_decay() -> None:
    named = weights()
    optimiser = Optimiser([(named, 0.1)], 0.5, 1.0, steps=10)
    optimiser.step(0.0 * sum(w.sum() for w in named.values()))
    assert torch.all(named["matrix"] < 1.0)
    assert torch.equal(named["vector"], torch.ones(2))


def test_long_gradients_are_cut_to_the_clip() -> None:
    named = weights()
    optimiser = Optimiser([(named, 0.1)], 0.0, 2.0, steps=10)
    optimiser.step(1000.0 * sum(w.sum() for w in named.values()))
    norm = torch.stack([w.grad.norm() for w in named.values()]).norm()
    assert norm.item() == pytest.approx(2.0, rel=1e-4)


def test_a_restored_optimiser_goes_on_as_if_nothing_had_been() -> None:
    def loss(named: dict[str, nn.Parameter], step: int) -> torch.Tensor:
        return sum(((w - step) ** 2).sum() for w in named.values())

    straight, broken = weights(), weights()
    whole, first = Optimiser([(straight, 0.1)], 0.1, 5.0, 20), Optimiser([(broken, 0.1)], 0.1, 5.0, 20)
    for step in range(20):
        whole.step(loss(straight, step))
        if step < 7:
            first.step(loss(broken, step))
    second = Optimiser([(broken, 0.1)], 0.1, 5.0, 20)
    second.restore({name: tensor.clone() for name, tensor in first.state().items()}, first.done)
    for step in range(7, 20):
        second.step(loss(broken, step))
    assert all(torch.equal(straight[name], broken[name]) for name in straight)


def test_moments_of_channels_last_weights_keep_their_places() -> None:
    torch.manual_seed(0)
    named = {"kernel": nn.Parameter(torch.randn(4, 3, 3, 3).contiguous(memory_format=torch.channels_last))}
    target = torch.randn(4, 3, 3, 3)
    first = Optimiser([(named, 0.1)], 0.0, 5.0, 20)
    first.step(((named["kernel"] - target) ** 2).sum())
    state = {name: tensor.contiguous().clone() for name, tensor in first.state().items()}
    second = Optimiser([({"kernel": nn.Parameter(named["kernel"].detach().clone())}, 0.1)], 0.0, 5.0, 20)
    second.restore(state, 1)
    for optimiser in (first, second):
        optimiser.step(((optimiser.named["kernel"] - target) ** 2).sum())
    assert torch.equal(first.named["kernel"], second.named["kernel"])


@pytest.mark.parametrize("steps_back", [50, 420])
def test_the_average_reaches_back_as_told(steps_back: int) -> None:
    named = weights(0.0)
    average = Average(named, steps_back)
    for step in range(1, 6001):
        with torch.no_grad():
            named["vector"].fill_(step)
        average.update()
    assert 6000 - average.averaged["vector"][0].item() == pytest.approx(steps_back, rel=0.03)
    assert average.averaged["matrix"].eq(0).all()


def test_the_average_of_a_short_run_forgets_its_beginning() -> None:
    named = weights(2000.0)
    short = Average(named, steps_back=1000)
    with torch.no_grad():
        named["vector"].fill_(0.0)
    for _ in range(20):
        short.update()
    assert short.averaged["vector"][0].item() < 0.01 * 2000


@pytest.mark.parametrize("steps_back", [10, 200])
def test_a_restored_average_goes_on(steps_back: int) -> None:
    straight, broken = weights(0.0), weights(0.0)
    whole, first = Average(straight, steps_back), Average(broken, steps_back)
    for step in range(20):
        for named, average in ((straight, whole), (broken, first)):
            if step == 9 and average is first:
                second = Average(broken, steps_back)
                second.restore({name: tensor.clone() for name, tensor in first.averaged.items()}, 9)
                first = average = second
            with torch.no_grad():
                named["vector"].fill_(step)
            average.update()
    assert torch.equal(whole.averaged["vector"], first.averaged["vector"])
