"""Captioning by workers of Ray Data, on this machine or on a cluster: units of pictures out, rows back.

A worker has the model and takes a unit at a time from reading to rows. When it is killed, Ray starts another and gives
it the unit again; of a unit's result, Ray Data hands one copy over. Only the process that asked for it writes, so that
a second try can add nothing.

Needs pip install "captioner[ray]" on every node. The checkpoint travels through Ray; pictures with paths must be on a
disk that all nodes see. The precision "auto" is each worker's own choice, by its processor.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from captioner.bulk.sources import Unit, pictures
from captioner.errors import CaptionerError, DeviceError, one_line
from captioner.inference.captioner import load
from captioner.inference.results import Row, row_of
from captioner.machine import available_cpus
from captioner.options import DecodeOptions

try:
    # Before the import: no usage statistics, no errors beside exceptions, no warning of what Ray will do some day.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    import ray.data
    from ray.exceptions import RayError
except ImportError as error:
    hint = 'pip install "captioner[ray]" (in a clone: pip install -e ".[ray]")'
    raise CaptionerError(f"--runner ray needs Ray: {hint}") from error

CPUS = 0.5  # of one that keeps a thread busy: room for Ray Data itself, and for the workers of a node that is lost
ATTEMPTS = 6  # at a unit; Ray itself would try for ever what kills its worker every time


@dataclass(frozen=True)
class Job:
    """How workers caption."""

    checkpoint: bytes  # the file's content
    options: DecodeOptions
    prompt: str = ""
    batch_size: int = 32
    precision: str = "auto"


@contextmanager
def connected() -> Iterator[None]:
    """With the cluster at RAY_ADDRESS, or a local one of this process's own."""
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _knock(address)
    here: dict[str, Any] = {} if address else {"num_cpus": available_cpus(), "include_dashboard": False}
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors come as exceptions, too
    ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **here)
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise DeviceError where nobody listens: Ray would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise DeviceError(f"RAY_ADDRESS is {address}, where no cluster answers ({error})") from error


def share(workers: int | None, device: str = "auto") -> tuple[int, int, dict[str, float]]:
    """The number of workers, the threads of each, and what Ray shall reserve for each: a GPU where there are any.

    Raises DeviceError when the cluster is too small for that.
    """
    cluster = ray.cluster_resources()
    cpus, gpus = cluster.get("CPU", 0.0), cluster.get("GPU", 0.0)
    if device == "cuda" and not gpus:
        raise DeviceError("--device cuda: the cluster has no GPU")
    on_gpus = gpus >= 1 and device != "cpu"
    workers = workers or max(1, int(gpus if on_gpus else cpus))
    threads = max(1, int(cpus / workers)) if on_gpus else 1
    each = {"num_cpus": CPUS * threads, "num_gpus": 1.0 if on_gpus else 0.0}
    for name, needed, there in (("CPU", each["num_cpus"], cpus), ("GPU", each["num_gpus"], gpus)):
        if workers * needed > there:
            raise DeviceError(
                f"the cluster is too small: {workers} workers need {workers * needed:g} {name}s "
                f"({needed:g} each), it has {there:g}: give --workers {int(there / needed)} or fewer, "
                "or the address of a larger cluster in RAY_ADDRESS"
            )
    return workers, threads, each


def caption_units(units: list[Unit], job: Job, workers: int, threads: int, each: dict[str, float]) -> Iterator[Row]:
    """One row a picture (see `writers.row_of`), in the order of the units, each exactly once.

    Raises DeviceError when a worker fails for another reason than a picture, or a result is missing or comes twice.
    """
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    # As text, because a path may be what Arrow does not take for text. One unit a block, so that one is what is lost.
    items = [{"number": number, "unit": json.dumps(unit)} for number, unit in enumerate(units)]
    device = "cuda" if each["num_gpus"] else "cpu"
    attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote()
    results = ray.data.from_items(items, override_num_blocks=len(items)).map(
        Worker,  # restarted, and its units tried again, without end
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
            yield from rows
            done += 1
    except RayError as error:
        *_, reason = str(error).strip().splitlines()
        raise DeviceError(f"the cluster failed: {one_line(reason)}") from error
    if done != len(units):
        raise DeviceError(f"only {done} of {len(units)} units came back")


class Attempts:
    """How often each unit was begun, kept where no picture can kill it."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        """Count another attempt at a unit; how many it has had."""
        self._begun[number] += 1
        return self._begun[number]


class Worker:
    """A process of the cluster with the model in it."""

    def __init__(self, job: Any, attempts: Any, threads: int, device: str, folder: str) -> None:
        with suppress(OSError):  # relative paths are seen from there, where the node has it
            os.chdir(folder)
        self._job: Job = ray.get(job)
        self._attempts = attempts
        torch.set_num_threads(threads)
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "checkpoint.safetensors"
            path.write_bytes(self._job.checkpoint)
            self._model = load(path, device, self._job.precision)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """One unit: its number, and its rows as JSON, or why there are none."""
        job, result = self._job, {"number": item["number"], "rows": "", "failure": ""}
        try:
            if ray.get(self._attempts.begin.remote(item["number"])) > ATTEMPTS:
                return {
                    **result,
                    "failure": f"ended {ATTEMPTS} workers (a picture that kills them, too little memory?)",
                }
            found = pictures(json.loads(item["unit"]), job.batch_size)
            captions = self._model.caption_named(found, job.options, job.batch_size, prompt=job.prompt)
            return {**result, "rows": json.dumps([row_of(caption) for caption in captions])}
        except Exception as error:  # one of a task would come with pages of Ray's around it
            return {**result, "failure": one_line(f"{type(error).__name__}: {error}")}
