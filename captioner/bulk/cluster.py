"""Caption pictures with many workers of Ray, on this machine or on a cluster: `caption_on_cluster`.

Pictures are cut into units of work. Each worker is a process that holds the model, and makes rows of one unit after the
other. When it is killed, another one gets its unit. Only the process that called `caption_on_cluster` writes, and it
takes one result of each unit, in order, so a second attempt cannot add rows.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.bulk.progress import Progress, Summary
from captioner.bulk.worker import Job, Worker
from captioner.errors import DeviceError, InputError, OptionError, one_line, to_install
from captioner.files import AnyPath, listed
from captioner.inference.reader import load_reader
from captioner.inference.results import Row
from captioner.inference.rules import Rules
from captioner.machine import available_cpus
from captioner.network.checkpoint import load_checkpoint
from captioner.network.header import find_checkpoint
from captioner.options import PRECISIONS, SHARD_FORMATS, DecodeOptions
from captioner.pictures.find import STDIN, Stdin, read_stdin

if TYPE_CHECKING:  # it needs the extra
    from captioner.bulk.shards import Shards
    from captioner.bulk.sources import Unit

CPUS = 0.5  # reserved for a thread, so that there is room for the workers of a lost node
AHEAD = 3  # units a worker, from the one whose rows are written next: what may be in work or waits to be written
COPIES = 2  # of a unit that may be in work at once
ATTEMPTS = 6  # workers that a unit may kill


def caption_on_cluster(
    paths: AnyPath | Iterable[AnyPath],
    output: AnyPath,
    *,
    format: str = "parquet",
    options: DecodeOptions | None = None,
    prompt: str = "",
    checkpoint: AnyPath | None = None,
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    recursive: bool = False,
    stdin: Stdin = (),
    batch_size: int = 32,
    index: bool = False,
    recaption: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Write the captions of many pictures into a folder of shards; what `captioner cluster` does.

    `paths` are files, folders, patterns and "-" as in `bulk.run.caption_files`, and also webdataset tar files, parquet
    files, and addresses such as "s3://bucket/photos/*.jpg". `output` is a folder, or its address. It gets files in the
    `format` parquet or jsonl, and at the end one named _SUCCESS. A picture that cannot be read gets a row with an
    error. If an earlier run with the same settings made the folder, whether it was killed or not, only pictures without
    a caption there get rows. A picture that has a caption in its tar file (a .caption, .txt or .json next to it) or its
    table (a column caption or text) keeps it, in a row that is marked as `given`; with `recaption` it gets a new one.
    The cluster is the one at the address in the environment variable RAY_ADDRESS; without it, workers run on this
    machine. Every node needs pip install "captioner[ray]", and must see the pictures that are given by paths. The
    checkpoint is sent to it. `device` is cpu, cuda, or auto, which takes GPUs where there are any. With the `precision`
    auto each worker chooses by its own processor. `workers` is as many as there are GPUs or processors by default.
    `index` adds a column `vector` to parquet: unit vectors of one size, as `Reader.pictures` in `inference/reader.py`
    makes them, by which pictures are found. It is empty where there is an error.

    Raises OptionError, InputError, OutputError (the folder holds something else, or was made with other settings),
    CheckpointError, and DeviceError: Ray is not installed, the cluster lacks what was asked for, or a worker fails for
    another reason than a picture.
    """
    options, progress = options or DecodeOptions(), progress or Progress(quiet=True, say=lambda line: None)
    _check_usage(format, device, precision, batch_size, workers, index)
    _ray()
    from captioner.bulk.shards import Shards  # it needs the extra, too

    file = find_checkpoint(checkpoint)
    size = load_reader(file).size if index else 0
    job = Job(file.read_bytes(), options, prompt, batch_size, precision, size, recaption)
    shards = Shards(os.fspath(output), format, size, job.settings())
    work, known, total = _work(paths, recursive, stdin, batch_size, shards)
    Rules.of(options, load_checkpoint(file).vocabulary, prompt)  # a wrong checkpoint or prompt is reported here
    if not work:
        progress.begin(total, known)
        shards.write([])
        return progress.finish()
    with connected():
        workers, threads, each = share(workers, device, COPIES * len(work))
        progress.begin(total, known)
        progress.note(f"workers: {workers}, threads of each: {threads}, units of work: {len(work)}")
        batches = progress.watch_batches(caption_units(work, job, workers, threads, each))
        shards.write(batches)
    return progress.finish()


def _work(
    paths: AnyPath | Iterable[AnyPath], recursive: bool, stdin: Stdin, batch_size: int, shards: Shards
) -> tuple[list[Unit], int, int | None]:
    """The units of those pictures that have no caption in the shards, how many have one, and how many there are in all.

    Nobody knows how many are in tar files: None. Raises InputError.
    """
    from captioner.bulk.sources import archive_of, find_sources, units

    lines = read_stdin(stdin) if STDIN in (arguments := listed(paths)) else []
    if isinstance(lines, bytes):
        raise InputError("a picture on stdin is for `captioner caption -`: a cluster takes lists of paths")
    sources = find_sources(arguments, recursive, lines)
    earlier = shards.earlier(source for source in sources if archive_of(source) == ".tar")
    work = list(units(sources, batch_size, earlier))
    if not work and not earlier.known:
        raise InputError("no pictures were given: every table is empty")
    rows = [unit["rows"] for unit in work]
    return work, earlier.known, None if None in rows else earlier.known + sum(rows)


def _ray() -> Any:
    """The package, which takes seconds to import. Raises DeviceError when it is not installed."""
    # Before the import: no usage statistics, no log of errors that are also raised, no warnings of future versions.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise DeviceError(f"captioning on a cluster needs Ray: {to_install('ray')}") from error
    return ray


def _check_usage(format: str, device: str, precision: str, batch_size: int, workers: int | None, index: bool) -> None:
    """Raise OptionError for values that are impossible."""
    choices = {"format": SHARD_FORMATS, "device": ("auto", "cpu", "cuda"), "precision": PRECISIONS}  # Ray assigns GPUs
    for value, (name, known) in zip((format, device, precision), choices.items(), strict=True):
        if value not in known:
            raise OptionError(f"{name} must be one of {', '.join(known)} on a cluster, not {value!r}")
    for name, number in (("batch_size", batch_size), ("workers", workers)):
        if number is not None and number < 1:
            raise OptionError(f"{name} must be at least 1, not {number}")
    if index and format != "parquet":
        raise OptionError(f"index (--index) needs the format parquet: {format} has no vectors")


@contextmanager
def connected() -> Iterator[None]:
    """Connected to the cluster at RAY_ADDRESS, or to a local one that ends with this process. Raises DeviceError."""
    address = os.environ.get("RAY_ADDRESS")
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if port.isdigit():  # Ray itself would try for many minutes where nobody listens
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise DeviceError(f"RAY_ADDRESS is {address}, where no cluster answers ({error})") from error
    local: dict[str, Any] = {} if address else {"num_cpus": available_cpus(), "include_dashboard": False}
    ray = _ray()
    ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    try:
        yield
    except ray.exceptions.RayError as error:
        *_, reason = str(error).strip().splitlines()
        raise DeviceError(f"the cluster failed: {one_line(reason)}") from error
    finally:
        ray.shutdown()


def share(workers: int | None, device: str, most: int) -> tuple[int, int, dict[str, float]]:
    """Workers, threads of each, and what Ray shall reserve for each. There is work for so many workers at most.

    Raises DeviceError if the cluster is too small.
    """
    cluster = _ray().cluster_resources()
    cpus, gpus = cluster.get("CPU", 0.0), cluster.get("GPU", 0.0)
    if device == "cuda" and not gpus:
        raise DeviceError("device cuda: the cluster has no GPU")
    on_gpus = gpus >= 1 and device != "cpu"
    workers = min(workers or max(1, int(gpus if on_gpus else cpus)), most)
    threads = max(1, int(cpus / workers)) if on_gpus else 1
    each = {"num_cpus": CPUS * threads, "num_gpus": float(on_gpus)}
    for name, needed, there in (("CPU", each["num_cpus"], cpus), ("GPU", each["num_gpus"], gpus)):
        if workers * needed > there:
            lack = f"{workers} workers need {workers * needed:g} {name}s ({needed:g} each), it has {there:g}"
            remedy = f"give workers (--workers) {int(there / needed)} or fewer, or set RAY_ADDRESS to a larger cluster"
            raise DeviceError(f"the cluster is too small: {lack}: {remedy}")
    return workers, threads, each


def caption_units(
    units: Sequence[Unit], job: Job, workers: int, threads: int, each: Mapping[str, float]
) -> Iterator[list[Row]]:
    """The rows of one unit after the other, as `inference.results.row_of` makes them, with vectors if the job has any.

    No worker takes a unit that is `AHEAD` units a worker or more behind the one that is due, so that memory holds few
    results. A worker that would be idle then tries a unit that another one has in work, in case that one is slow or was
    lost: the first result counts. The unit of a worker that was killed goes to another one. Workers that have answered
    go first: one that has not may wait for a place in the cluster for ever.
    Raises DeviceError when a worker fails for another reason than a picture, or a unit kills many of them.
    """
    ray = _ray()
    actor = ray.remote(**each, scheduling_strategy="SPREAD")(Worker)
    given = ray.put(job), threads, "cuda" if each["num_gpus"] else "cpu", str(Path.cwd())
    idle = [(actor.remote(*given), False) for _ in range(workers)]  # and whether it has answered
    running: dict[Any, tuple[Any, bool, int]] = {}  # also the number of the unit, by the reference to the result
    done: dict[int, list[Row]] = {}
    killed = Counter[int]()  # workers, by the number of the unit
    for due, unit in enumerate(units):
        while True:
            wanted = [number for number in range(due, min(due + AHEAD * workers, len(units))) if number not in done]
            while idle and (number := _next(wanted, idle[-1][1], running.values())) is not None:
                worker, answered = idle.pop()
                running[worker.caption.remote(units[number])] = worker, answered, number
            if due in done:
                break
            [ready], _ = ray.wait(list(running), num_returns=1)
            worker, _, number = running.pop(ready)
            try:
                rows = ray.get(ready)
                if number >= due:  # otherwise another worker was faster
                    done.setdefault(number, rows)
                idle.append((worker, True))
            except ray.exceptions.RayTaskError as error:
                raise _failed(number, units, f"{type(error.cause).__name__}: {error.cause}") from error
            except ray.exceptions.RayError as error:
                if getattr(error, "actor_init_failed", False):
                    raise
                killed[number] += 1
                if killed[number] == ATTEMPTS:
                    reason = f"ended {ATTEMPTS} workers (a picture that kills them, or too little memory?)"
                    raise _failed(number, units, reason) from error
                ray.kill(worker)
                idle.insert(0, (actor.remote(*given), False))
        rows = done.pop(due)
        if unit["rows"] not in (None, len(rows)):
            raise _failed(due, units, f"{len(rows)} rows came for {unit['rows']} pictures")
        yield rows


def _next(wanted: Iterable[int], answered: bool, running: Collection[tuple[Any, bool, int]]) -> int | None:
    """The unit for an idle worker: the first of those that fewest have in work; None if enough have each of them.

    A worker that has answered may also take a unit that only such workers have as never did.
    """
    copies = Counter(number for _, _, number in running)
    safe = {number for _, has_answered, number in running if has_answered}
    free = (number for number in wanted if copies[number] < COPIES or (answered and number not in safe))
    return min(free, key=lambda number: (copies[number], number), default=None)


def _failed(number: int, units: Sequence[Unit], reason: str) -> DeviceError:
    return DeviceError(f"unit {number}, {units[number]!s:.200}: {one_line(reason)}")
