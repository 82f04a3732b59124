"""Work on several threads comes back in its order."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from captioner.inference.parallel import in_batches, in_order


def test_results_come_in_the_order_of_their_items() -> None:
    def work(item: int) -> int:
        time.sleep(0.02 if item % 3 == 0 else 0.0)
        return item * 10

    with ThreadPoolExecutor(3) as pool:
        assert list(in_order(pool, work, range(20), 4)) == [item * 10 for item in range(20)]
        assert list(in_order(pool, work, [], 4)) == []


def test_no_more_than_asked_for_is_taken_ahead_and_what_nobody_waits_for_is_not_begun() -> None:
    taken, begun, gate = 0, [], threading.Event()

    def endless() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    def work(item: int) -> int:
        begun.append(item)
        if item > 1:
            gate.wait(10)
        return item

    with ThreadPoolExecutor(1) as pool:
        results = in_order(pool, work, endless(), 4)  # type: ignore[arg-type]  # an endless one of numbers
        assert next(results) == 1
        assert taken == 4
        results.close()  # type: ignore[attr-defined]  # it is a generator
        gate.set()
    assert len(begun) <= 2


def test_an_error_comes_out_where_its_result_would() -> None:
    def work(item: int) -> float:
        return 1 / item

    with ThreadPoolExecutor(2) as pool:
        results = in_order(pool, work, [1, 2, 0, 4], 3)
        assert [next(results), next(results)] == [1.0, 0.5]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_batches_hold_all_items_and_only_the_last_is_shorter() -> None:
    assert list(in_batches(iter(range(7)), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(in_batches([], 3)) == []
