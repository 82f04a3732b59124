"""Caption pictures with many workers of Ray Data, on this machine or on a cluster: `caption_on_cluster`.

Pictures are cut into units of work. Each worker holds the model, and makes rows of one unit after the other. When a
worker is killed, Ray starts another one and gives it the same unit. Only the process that called `caption_on_cluster`
writes, and Ray Data gives it one result for each unit, so a second attempt cannot add rows.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captioner.bulk.progress import Progress, Summary
from captioner.bulk.vectors import Vectors
from captioner.errors import DeviceError, InputError, OptionError, one_line, to_install
from captioner.files import AnyPath, listed
from captioner.inference.captioner import load
from captioner.inference.reader import load_reader
from captioner.inference.results import Row, row_of
from captioner.inference.rules import Rules
from captioner.inference.store import Named
from captioner.machine import available_cpus
from captioner.network.checkpoint import load_checkpoint
from captioner.network.header import find_checkpoint
from captioner.options import PRECISIONS, SHARD_FORMATS, DecodeOptions
from captioner.pictures.find import STDIN, Stdin, read_stdin

CPUS = 0.5  # reserved for a thread, so that there is room for Ray Data itself and for the workers of a lost node
ATTEMPTS = 6  # at a unit; Ray itself would never give up a unit that kills its worker every time


@dataclass(frozen=True)
class Job:
    """How workers caption."""

    checkpoint: bytes  # the content of the file
    options: DecodeOptions
    prompt: str = ""
    batch_size: int = 32
    precision: str = "auto"
    vector_size: int = 0  # of the vectors beside captions; 0 for none


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
    progress: Progress | None = None,
) -> Summary:
    """Write the captions of many pictures into a folder of shards; what `captioner cluster` does.

    `paths` are files, folders, patterns and "-" as in `bulk.run.caption_files`, and also webdataset tar files, parquet
    files, and addresses such as "s3://bucket/photos/*.jpg". `output` is a new or empty folder, or its address. It gets
    files in the `format` parquet or jsonl, and at the end one named _SUCCESS. A picture that cannot be read gets a row
    with an error.
    The cluster is the one at the address in the environment variable RAY_ADDRESS; without it, workers run on this
    machine. Every node needs pip install "captioner[ray]", and must see the pictures that are given by paths. The
    checkpoint is sent to it. `device` is cpu, cuda, or auto, which takes GPUs where there are any. With the `precision`
    auto each worker chooses by its own processor. `workers` is as many as there are GPUs or processors by default.
    `index` adds a column `vector` to parquet: unit vectors of one size, as `Reader.pictures` in `inference/reader.py`
    makes them, by which pictures are found. It is empty where there is an error.

    Raises OptionError, InputError, OutputError (the folder is not empty), CheckpointError, and DeviceError: Ray is not
    installed, the cluster lacks what was asked for, or a worker fails for another reason than a picture.
    """
    options, progress = options or DecodeOptions(), progress or Progress(quiet=True, say=lambda line: None)
    _check_usage(format, device, precision, batch_size, workers, index)
    _ray()
    from captioner.bulk.shards import Shards  # these two need the extra, too
    from captioner.bulk.sources import find_sources, units

    file = find_checkpoint(checkpoint)
    size = load_reader(file).size if index else 0
    shards = Shards(os.fspath(output), format, size)
    lines = read_stdin(stdin) if STDIN in (arguments := listed(paths)) else []
    if isinstance(lines, bytes):
        raise InputError("a picture on stdin is for `captioner caption -`: a cluster takes lists of paths")
    work = list(units(find_sources(arguments, recursive, lines), batch_size))
    if not work:
        raise InputError("no pictures were given: every table is empty")
    Rules.of(options, load_checkpoint(file).vocabulary, prompt)  # a wrong checkpoint or prompt is reported here
    job = Job(file.read_bytes(), options, prompt, batch_size, precision, size)
    rows = [unit["rows"] for unit in work]
    with connected():
        workers, threads, each = share(workers, device)
        progress.begin(None if None in rows else sum(rows))
        if not progress.quiet:
            progress.say(f"captioner: workers: {workers}, threads of each: {threads}, units of work: {len(work)}")
        shards.write(progress.watch(caption_units(work, job, workers, threads, each)))
    return progress.finish()


def _ray() -> Any:
    """The package, which takes seconds to import. Raises DeviceError when it is not installed."""
    # Before the import: no usage statistics, no log of errors that are also raised, no warnings of future versions.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
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
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its errors also come as exceptions
    ray = _ray()
    ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    try:
        yield
    finally:
        ray.shutdown()


def share(workers: int | None, device: str) -> tuple[int, int, dict[str, float]]:
    """Workers, threads of each, and what Ray shall reserve for each. Raises DeviceError if the cluster is too small."""
    cluster = _ray().cluster_resources()
    cpus, gpus = cluster.get("CPU", 0.0), cluster.get("GPU", 0.0)
    if device == "cuda" and not gpus:
        raise DeviceError("device cuda: the cluster has no GPU")
    on_gpus = gpus >= 1 and device != "cpu"
    workers = workers or max(1, int(gpus if on_gpus else cpus))
    threads = max(1, int(cpus / workers)) if on_gpus else 1
    each = {"num_cpus": CPUS * threads, "num_gpus": float(on_gpus)}
    for name, needed, there in (("CPU", each["num_cpus"], cpus), ("GPU", each["num_gpus"], gpus)):
        if workers * needed > there:
            lack = f"{workers} workers need {workers * needed:g} {name}s ({needed:g} each), it has {there:g}"
            remedy = f"give workers (--workers) {int(there / needed)} or fewer, or set RAY_ADDRESS to a larger cluster"
            raise DeviceError(f"the cluster is too small: {lack}: {remedy}")
    return workers, threads, each


def caption_units(
    units: list[dict[str, Any]], job: Job, workers: int, threads: int, each: dict[str, float]
) -> Iterator[Row]:
    """One row a picture, as `inference.results.row_of` makes it, in the order of the units (see `bulk.sources`).

    Raises DeviceError when a worker fails for another reason than a picture, or a result is missing or comes twice.
    """
    ray = _ray()
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    # JSON, because Arrow does not accept every path as text. A block of one unit, so that no more than one is lost.
    items = [{"number": number, "unit": json.dumps(unit)} for number, unit in enumerate(units)]
    device = "cuda" if each["num_gpus"] else "cpu"
    attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote()
    results = ray.data.from_items(items, override_num_blocks=len(items)).map(
        Worker,  # Ray restarts it and tries its units again without end
        fn_constructor_args=(ray.put(job), attempts, threads, device, str(Path.cwd())),
        compute=ray.data.ActorPoolStrategy(size=workers),
        **each,
    )
    done = 0
    try:
        for result in results.iter_rows():
            if result["failure"]:
                raise DeviceError(f"unit {result['number']}, {units[result['number']]!s:.200}: {result['failure']}")
            rows = json.loads(result["rows"])
            if result["number"] != done or units[done]["rows"] not in (None, len(rows)):
                raise DeviceError(f"unit {result['number']} came with {len(rows)} rows where unit {done} was due")
            yield from _with_vectors(rows, result["vectors"], job.vector_size)
            done += 1
    except ray.exceptions.RayError as error:
        *_, reason = str(error).strip().splitlines()
        raise DeviceError(f"the cluster failed: {one_line(reason)}") from error
    if done != len(units):
        raise DeviceError(f"only {done} of {len(units)} units came back")


def _with_vectors(rows: list[Row], vectors: bytes, size: int) -> list[Row]:
    """Rows that have no error with their vectors, if there are any."""
    found = iter(np.frombuffer(vectors, np.float32).reshape(-1, size or 1))
    return [row if "error" in row or not size else {**row, "vector": next(found)} for row in rows]


class Attempts:
    """Counts how often each unit was begun, in a process of its own that no picture can kill."""

    def __init__(self) -> None:
        self._begun = Counter[int]()

    def begin(self, number: int) -> int:
        """Count another attempt at a unit, and return how many there were."""
        self._begun[number] += 1
        return self._begun[number]


class Worker:
    """A process of the cluster that holds the model."""

    def __init__(self, job: Any, attempts: Any, threads: int, device: str, folder: str) -> None:
        with suppress(OSError):  # relative paths begin in this folder, if the node has it
            os.chdir(folder)
        self._job: Job = _ray().get(job)
        self._attempts = attempts
        torch.set_num_threads(threads)
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "checkpoint.safetensors"
            path.write_bytes(self._job.checkpoint)
            self._model = load(path, device, self._job.precision)
            self._reader = self._model.reader() if self._job.vector_size else None

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """One unit: its number, and either its rows as JSON and their vectors, or the reason why there are none."""
        from captioner.bulk.sources import pictures

        job, result = self._job, {"number": item["number"], "rows": "", "vectors": b"", "failure": ""}
        try:
            if _ray().get(self._attempts.begin.remote(item["number"])) > ATTEMPTS:
                reason = f"ended {ATTEMPTS} workers (a picture that kills them, or too little memory?)"
                return {**result, "failure": reason}
            found: Iterable[Named] = pictures(json.loads(item["unit"]), job.batch_size)
            store = Vectors(self._reader) if self._reader else None
            found = store.numbered(found) if store else found
            captions = self._model.caption_named(found, job.options, job.batch_size, prompt=job.prompt, store=store)
            rows = json.dumps(list(map(row_of, captions)))
            return {**result, "rows": rows, "vectors": store.in_order().tobytes() if store else b""}
        except Exception as error:  # raised here it would reach the caller inside pages of Ray's own text
            return {**result, "failure": one_line(f"{type(error).__name__}: {error}")}
