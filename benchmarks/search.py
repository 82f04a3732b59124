"""How long a search among made-up vectors takes: ours, other ways with NumPy and torch, and approximate indexes.

    python benchmarks/search.py --number 1000000
    pip install usearch faiss-cpu     # in an environment of its own; without them they are left out

Vectors lie around centres, as those of pictures do, so that approximate indexes can do their work. Each time is the
median of several queries, warm: the file is in the system's memory. Recall is the share of the true best 20 that an
index finds. `--threads` limits all of them alike.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE, BEST, QUERIES = 256, 20, 15
Floats = NDArray[np.float32]


def unit(vectors: Floats) -> Floats:
    """Vectors scaled to unit length."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def make(number: int, file: Path, rng: np.random.Generator) -> tuple[NDArray[np.float16], Floats]:
    """Vectors (N, D) in a file, and queries (Q, D) near some of them."""
    centres = rng.standard_normal((max(1, number // 100), SIZE), np.float32)
    vectors = np.memmap(file, np.float16, "w+", shape=(number, SIZE))
    for start in range(0, number, 20_000):
        some = min(20_000, number - start)
        near = centres[rng.integers(len(centres), size=some)]
        vectors[start : start + some] = unit(near + 0.7 * rng.standard_normal((some, SIZE), np.float32))
    vectors.flush()
    chosen = vectors[rng.integers(number, size=QUERIES)].astype(np.float32)
    return vectors, unit(chosen + 0.05 * rng.standard_normal((QUERIES, SIZE), np.float32))


def timed(search: Callable[[Floats], NDArray[np.int64]], queries: Floats) -> tuple[float, list[set[int]]]:
    """The median of the seconds that a query takes, and what each found."""
    search(queries[0])
    seconds, found = [], []
    for query in queries:
        began = time.perf_counter()
        best = search(query)
        seconds.append(time.perf_counter() - began)
        found.append(set(best.tolist()))
    return float(np.median(seconds)), found


def top(scores: Floats) -> NDArray[np.int64]:
    """The places of the largest scores."""
    return np.argpartition(-scores, BEST)[:BEST]


def in_blocks(vectors: Any, product: Callable[[Any, Floats], Floats], block: int, threads: int) -> Any:
    """A search that multiplies blocks of vectors on several threads."""

    def search(query: Floats) -> NDArray[np.int64]:
        with ThreadPoolExecutor(threads) as pool:
            parts = pool.map(
                lambda start: product(vectors[start : start + block], query), range(0, len(vectors), block)
            )
            return top(np.concatenate(list(parts)))

    return search


def ours(file: Path, number: int) -> Callable[[Floats], NDArray[np.int64]]:
    """`captioner find` without looking at the folder."""
    from captioner.bulk.index import IndexFile

    reader: Any = SimpleNamespace(size=SIZE)
    index = IndexFile(file.with_suffix(".sqlite"), "made up", reader, print)
    file.replace(index._do(index._vectors))
    numbers = np.arange(number)
    return lambda query: top(index.products(numbers, query[:, None])[:, 0])


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--approximate", action="store_true", help="also usearch and faiss")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(args.number, args.threads, args.approximate, Path(folder) / "vectors.bin")


def measure(number: int, threads: int, approximate: bool, file: Path) -> None:
    """Print a line for each way."""
    vectors, queries = make(number, file, np.random.default_rng(0))
    numbers = f"{number:,} vectors of {SIZE}, {threads} threads"
    print(f"{numbers}\n{'':34}{'ms a query':>12}{'recall':>8}{'build s':>9}{'bytes a vector':>16}", flush=True)
    exact: list[set[int]] = []

    def line(name: str, search: Any, build: float, size: float) -> None:
        seconds, found = timed(search, queries)
        exact[:] = exact or found
        recall = np.mean([len(one & true) / BEST for one, true in zip(found, exact, strict=True)])
        print(f"{name:34}{1000 * seconds:12.1f}{recall:8.3f}{build:9.0f}{size:16.0f}", flush=True)

    plain = in_blocks(vectors, lambda block, query: block.astype(np.float32) @ query, 4096, threads)
    line("NumPy's astype, blocks of 4,096", plain, 0, 2 * SIZE)
    scaled = np.empty((number, SIZE), np.int8)
    for start in range(0, number, 20_000):
        scaled[start : start + 20_000] = np.clip(np.rint(vectors[start : start + 20_000] * np.float32(400)), -127, 127)
    line("8 bits, astype", in_blocks(scaled, lambda b, q: b.astype(np.float32) @ q, 4096, threads), 0, SIZE)
    if number <= 2_000_000:
        single = vectors.astype(np.float32)
        line("float32 in memory, one product", lambda query: top(single @ query), 0, 4 * SIZE)
    if find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
        halves = torch.from_numpy(np.asarray(vectors))
        line(
            "torch, float16", lambda query: top((halves @ torch.from_numpy(query).half()).float().numpy()), 0, 2 * SIZE
        )
    if find_spec("captioner"):
        line("captioner", ours(file, number), 0, 2 * SIZE)
    if approximate:
        approximate_lines(single, threads, line)


def approximate_lines(vectors: Floats, threads: int, line: Callable[..., None]) -> None:
    """Print lines for the indexes of usearch and faiss."""
    if find_spec("faiss"):
        import faiss  # before usearch, after which it crashes
    if find_spec("usearch"):
        from usearch.index import Index

        for kind, size in (("f16", 2), ("i8", 1)):
            began, graph = time.perf_counter(), Index(ndim=SIZE, metric="ip", dtype=kind)
            graph.add(np.arange(len(vectors)), vectors, threads=threads)
            build = time.perf_counter() - began
            search = partial(graph.search, count=BEST, threads=threads)
            line(f"usearch {kind}", lambda q, search=search: search(q).keys, build, size * SIZE + 140)
    if find_spec("faiss"):
        faiss.omp_set_num_threads(threads)
        inner = faiss.METRIC_INNER_PRODUCT
        lists = int(4 * len(vectors) ** 0.5)
        for name, size in (("SQfp16", 2 * SIZE), (f"IVF{lists},SQfp16", 2 * SIZE), (f"IVF{lists},SQ8", SIZE)):
            began, index = time.perf_counter(), faiss.index_factory(SIZE, name, inner)
            index.train(vectors[: 50 * lists])
            index.add(vectors)
            if "IVF" in name:
                index.nprobe = 32
            build = time.perf_counter() - began
            line(f"faiss {name}", lambda q, index=index: index.search(q[None], BEST)[1][0], build, size)


if __name__ == "__main__":
    main()
