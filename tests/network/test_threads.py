"""The number of torch's threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from captioner.network.threads import one_thread


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_one_thread_for_a_while_and_all_of_them_again_even_after_an_error() -> None:
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(ValueError, match="wrong"), one_thread():
        raise ValueError("wrong")
    assert torch.get_num_threads() == 2


def test_a_function_on_one_thread_each_time() -> None:
    count = one_thread()(torch.get_num_threads)
    assert [count(), torch.get_num_threads(), count()] == [1, 2, 1]
