"""Captioning on a cluster: what it refuses, and real runs on a local cluster of two workers."""

import functools
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import draw_picture

import captioner
import captioner.errors
from bulk.test_sources import write_parquet, write_tar
from captioner.bulk.progress import Progress

Command: TypeAlias = Callable[..., tuple[int, str, str]]
BROKEN = b"not a picture"


@pytest.fixture
def many(tmp_path: Path) -> list[Path]:
    """Two hundred pictures, two of them broken: one near the beginning, one at the end."""
    folder = tmp_path / "many"
    folder.mkdir()
    paths = [folder / f"{index:03}.jpg" for index in range(200)]
    for index, path in enumerate(paths):
        draw_picture(index).save(path)
    for index in (9, 199):
        paths[index].write_bytes(BROKEN)
    return paths


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """The address of tmp_path on a web server."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"format": "html"}, "format must be one of parquet, jsonl on a cluster, not 'html'"),
        ({"device": "cuda:1"}, "device must be one of auto, cpu, cuda on a cluster, not 'cuda:1'"),
        ({"precision": "float16"}, "precision must be one of auto, float32, bfloat16 on a cluster"),
        ({"workers": 0}, "workers must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"output": "full"}, "full: is not empty"),
        ({"prompt": "a dgo"}, r"did you mean 'dog'\?"),
        ({"index": True, "format": "jsonl"}, r"index \(--index\) needs the format parquet"),
        ({"index": True}, "tiny.safetensors: has no matcher"),
        ({"paths": "empty.parquet"}, "every table is empty"),
        ({"paths": []}, "every table is empty"),
    ],
)
def test_what_cannot_be_is_refused_before_there_is_a_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_checkpoint_file: Path, given: dict[str, Any], message: str
) -> None:
    from captioner.bulk import cluster

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "connected", lambda: pytest.fail("a cluster was started"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "part-00000.parquet").touch()
    write_parquet(tmp_path / "empty.parquet", {"url": pa.array([], pa.string())})
    with pytest.raises(captioner.errors.CaptionerError, match=message):
        cluster.caption_on_cluster(
            **{"paths": "a.jpg", "output": "out", "checkpoint": tiny_checkpoint_file, **given}  # type: ignore[arg-type]
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: -o/--output"),
        (["-o", "out", "--resume"], "unrecognized arguments: --resume"),
        (["-o", "out", "-f", "html"], "invalid choice: 'html'"),
        (["-o", "out", "--device", "cuda:1"], "invalid choice: 'cuda:1'"),
        (["-o", "out", "--prompt", "a dgo"], "did you mean 'dog'?"),
        (["-o", "out", "--index", "-f", "jsonl"], "index (--index) needs the format parquet"),
        (["-o", "out", "--index"], "has no matcher"),
    ],
)
def test_the_command_refuses_it_in_one_line(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_checkpoint_file: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, output, errors = command("cluster", "a.jpg", *arguments, "--checkpoint", tiny_checkpoint_file)
    assert (status, output) == (2, "")
    assert message in errors.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_without_ray_the_error_says_what_to_install(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ray", "pyarrow", "fsspec"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "captioner.bulk.sources", raising=False)
    monkeypatch.delitem(sys.modules, "captioner.bulk.shards", raising=False)
    status, _, errors = command("cluster", "a.jpg", "-o", "out")
    assert status == 2
    assert 'pip install "captioner[ray]"' in errors


@pytest.mark.slow
def test_captioning_on_one_machine_imports_no_ray(pictures: list[Path], tiny_checkpoint_file: Path) -> None:
    code = (
        "import sys, captioner.bulk.cluster; from captioner.cli.main import main;"
        f"main(['caption', {str(pictures[0])!r}, '--checkpoint', {str(tiny_checkpoint_file)!r}]);"
        "sys.exit('ray' in sys.modules or 'captioner.bulk.sources' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("cluster", "workers", "device", "expected"),
    [
        ({"CPU": 2.0}, None, "auto", (2, 1, {"num_cpus": 0.5, "num_gpus": 0.0})),
        ({"CPU": 1.0}, None, "auto", (1, 1, {"num_cpus": 0.5, "num_gpus": 0.0})),
        ({"CPU": 16.0, "GPU": 2.0}, None, "auto", (2, 8, {"num_cpus": 4.0, "num_gpus": 1.0})),
        ({"CPU": 16.0, "GPU": 2.0}, 3, "cpu", (3, 1, {"num_cpus": 0.5, "num_gpus": 0.0})),
        (
            {"CPU": 2.0},
            5,
            "auto",
            r"5 workers need 2.5 CPUs \(0.5 each\), it has 2: give workers .* 4 or fewer",
        ),
        (
            {"CPU": 64.0, "GPU": 2.0},
            3,
            "cuda",
            r"3 workers need 3 GPUs \(1 each\), it has 2: give workers .* 2 or fewer",
        ),
        ({"CPU": 2.0}, None, "cuda", "no GPU"),
    ],
)
def test_workers_take_what_the_cluster_has_or_the_error_says_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, cluster: dict[str, float], workers: int | None, device: str, expected: Any
) -> None:
    from captioner.bulk import cluster as runner

    monkeypatch.setattr(runner, "_ray", lambda: SimpleNamespace(cluster_resources=lambda: cluster))
    if isinstance(expected, tuple):
        assert runner.share(workers, device, 100) == expected
    else:
        with pytest.raises(runner.DeviceError, match=expected):
            runner.share(workers, device, 100)


def test_no_more_workers_than_there_is_work_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_checkpoint_file: Path
) -> None:
    from captioner.bulk import cluster as runner

    for there, threads, cpus, gpus in (({"CPU": 16.0}, 1, 0.5, 0.0), ({"CPU": 16.0, "GPU": 8.0}, 8, 4.0, 1.0)):
        monkeypatch.setattr(runner, "_ray", lambda there=there: SimpleNamespace(cluster_resources=lambda: there))
        for asked in (None, 4):
            assert runner.share(asked, "auto", 2) == (2, threads, {"num_cpus": cpus, "num_gpus": gpus})

    def share(workers: int | None, device: str, most: int) -> Any:
        raise runner.DeviceError(f"{most} at most")

    monkeypatch.setattr(runner, "connected", nullcontext)
    monkeypatch.setattr(runner, "share", share)
    with pytest.raises(runner.DeviceError, match="4 at most"):
        runner.caption_on_cluster(
            [f"{n}.jpg" for n in range(5)], tmp_path / "out", checkpoint=tiny_checkpoint_file, batch_size=1
        )


def test_only_pictures_that_were_asked_for_count_as_captioned_before(tmp_path: Path) -> None:
    from captioner.bulk.cluster import _work
    from captioner.bulk.shards import Shards

    paths = [str(tmp_path / f"{number}.jpg") for number in range(5)]
    tar = write_tar(tmp_path / "x.tar", {f"{number}.jpg": b"" for number in range(3)})
    captioned = [*paths[:4], *(f"{tar}/{number}.jpg" for number in range(3))]
    Shards(str(tmp_path / "out"), "jsonl").write([[{"path": path, "caption": "a"} for path in captioned]])
    for asked, expected in (([paths[0], paths[4]], (1, 2)), ([tar], (3, 3)), ([*paths[:2], tar], (5, 5))):
        assert _work(asked, False, (), 2, Shards(str(tmp_path / "out"), "jsonl"))[1:] == expected


def test_the_summary_tells_captions_that_were_there_from_those_of_the_model() -> None:
    lines = list[str]()
    progress = Progress(say=lines.append)
    progress.begin(4)
    given = {"path": "b.jpg", "caption": "mine", "given": True}
    new, failed = {"path": "a.jpg", "caption": "x"}, {**given, "error": "b.jpg: bad"}
    list(progress.watch_batches([[new, given, given], [failed]]))
    summary = progress.finish()
    assert (summary.captioned, summary.kept, summary.failed) == (1, 2, 1)
    assert "1 captioned, 2 had a caption, 1 failed" in lines[-1]


def test_an_address_where_no_cluster_listens_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from captioner.bulk import cluster as runner

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(runner.DeviceError, match="no cluster answers"), runner.connected():
        pass


class FakeRay:
    """A cluster in which `finishes` picks, of the calls in work, the one that ends next and what comes of it.

    It is given (worker, unit) pairs in the order of the calls, and returns the place of one and rows or an exception.
    """

    class RayError(Exception):
        """What Ray raises."""

    class RayTaskError(RayError):
        """What it raises when the method of a worker raised `cause`."""

        def __init__(self, cause: Exception) -> None:
            self.cause = cause

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, finishes: Callable[[list[tuple[int, int]]], tuple[int, Any]]) -> None:
        self.finishes, self.workers, self.killed = finishes, 0, list[int]()
        self.begun = list[tuple[int, int]]()

    def remote(self, **_: Any) -> Callable[[Any], Any]:
        return lambda _: SimpleNamespace(remote=self._start)

    def _start(self, *_: Any) -> Any:
        number = self.workers
        self.workers += 1

        def call(unit: dict[str, int]) -> Any:
            self.begun.append((number, unit["number"]))
            return len(self.begun), self.begun[-1]

        return SimpleNamespace(caption=SimpleNamespace(remote=call), number=number)

    def put(self, value: Any) -> Any:
        return value

    def wait(self, running: list[Any], num_returns: int) -> Any:
        place, self.result = self.finishes([call for _, call in running])
        return [running[place]], []

    def get(self, _: Any) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def kill(self, worker: Any) -> None:
        self.killed.append(worker.number)


@pytest.fixture
def scheduled(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[FakeRay, Iterator[list[dict[str, Any]]]]]:
    """A fake cluster, and the rows of so many units of one picture each on it."""
    from captioner.bulk import cluster as runner

    def scheduled(finishes: Any, units: int, workers: int) -> tuple[FakeRay, Iterator[list[dict[str, Any]]]]:
        ray = FakeRay(finishes)
        monkeypatch.setattr(runner, "_ray", lambda: ray)
        work = [{"number": number, "rows": 1} for number in range(units)]
        job = runner.Job(b"", captioner.DecodeOptions())
        return ray, runner.caption_units(work, job, workers, 1, {"num_gpus": 0.0})

    return scheduled


def rows(number: int) -> list[dict[str, Any]]:
    return [{"path": str(number)}]


def test_the_unit_of_a_slow_worker_goes_to_an_idle_one_and_comes_once(scheduled: Any) -> None:
    def all_but_the_first_worker(running: list[tuple[int, int]]) -> Any:
        place = next(place for place, (worker, _) in enumerate(running) if worker != slow)
        return place, rows(running[place][1])

    slow = 2  # idle workers are taken from the end of the list, so it gets unit 0
    ray, found = scheduled(all_but_the_first_worker, 50, 3)
    assert list(found) == [rows(number) for number in range(50)]
    assert ray.begun[0] == (slow, 0)
    assert [worker == slow for worker, number in ray.begun if number == 0] == [True, False]
    assert max(Counter(number for _, number in ray.begun).values()) == 2


def test_results_wait_for_the_writer_in_small_numbers(scheduled: Any) -> None:
    from captioner.bulk.cluster import AHEAD

    ray, found = scheduled(lambda running: (len(running) - 1, rows(running[-1][1])), 100, 2)
    for due in range(100):
        assert next(found) == rows(due)
        assert max(number for _, number in ray.begun) < due + 1 + 2 * AHEAD


def test_a_slow_result_that_comes_late_is_dropped(scheduled: Any) -> None:
    slow = (1, 0)  # the worker and its unit

    def late(running: list[tuple[int, int]]) -> Any:
        """The first call ends only after another worker has made its rows."""
        place = next(place for place, call in enumerate(running) if call != slow)
        if slow in running and (0, 0) in ray.begun and (0, 0) not in running:
            return running.index(slow), [{"path": "late"}]
        return place, rows(running[place][1])

    ray, found = scheduled(late, 20, 2)
    assert list(found) == [rows(number) for number in range(20)]
    assert [number for worker, number in ray.begun if worker == 1][1:], "the slow worker works on"


def test_the_unit_of_a_killed_worker_goes_to_a_new_one(scheduled: Any) -> None:
    def kills(running: list[tuple[int, int]]) -> Any:
        number = running[0][1]
        first = [each for _, each in ray.begun].count(number) == 1
        return 0, FakeRay.RayError("died") if first and number % 3 == 0 else rows(number)

    ray, found = scheduled(kills, 30, 2)
    assert list(found) == [rows(number) for number in range(30)]
    assert len(ray.killed) == ray.workers - 2 == 10
    for worker in ray.killed:
        *_, last = (number for each, number in ray.begun if each == worker)
        assert last % 3 == 0, "a worker that was killed got another unit"


@pytest.mark.parametrize("lost_first", [False, True])
@pytest.mark.parametrize("units", [1, 2, 3, 9])
def test_workers_that_cannot_be_placed_hold_nothing_up(scheduled: Any, units: int, lost_first: bool) -> None:
    """Workers 0 and 1 work. The node of 2 and 3 is lost, and Ray finds no place for those that come instead."""

    def half_is_lost(running: list[tuple[int, int]]) -> Any:
        placed = [place for place, (worker, _) in enumerate(running) if worker < 4]
        assert placed, f"only workers that cannot be placed have work: {running}"
        place = min(placed, key=lambda place: (running[place][0] >= 2) != lost_first)
        worker, number = running[place]
        return place, FakeRay.RayError("the node died") if worker >= 2 else rows(number)

    _, found = scheduled(half_is_lost, units, 4)
    assert list(found) == [rows(number) for number in range(units)]


def test_a_worker_that_has_answered_takes_what_only_workers_without_an_answer_have() -> None:
    from captioner.bulk.cluster import _next

    pending, answered = ("w", False, 0), ("w", True, 0)
    for running, takes in (
        ([pending], (0, 0)),
        ([pending, pending], (0, None)),
        ([pending, answered], (None, None)),
        ([answered, answered], (None, None)),
    ):
        assert tuple(_next([0], has_answered, running) for has_answered in (True, False)) == takes, running


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (FakeRay.RayTaskError(MemoryError("no room")), r"unit 0, {'number': 0, 'rows': 1}: MemoryError: no room"),
        ([], "unit 0, .*: 0 rows came for 1 pictures"),
        ([{}, {}], "unit 0, .*: 2 rows came for 1 pictures"),
        (FakeRay.RayError("died"), "unit 0, .*: ended 6 workers"),
    ],
)
def test_what_no_other_worker_could_do_better_ends_the_run(scheduled: Any, result: Any, message: str) -> None:
    from captioner.bulk.cluster import DeviceError

    _, found = scheduled(lambda running: (0, result), 3, 1)
    with pytest.raises(DeviceError, match=message):
        list(found)


def by_path(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {row["path"]: row for row in rows}
    assert len(found) == len(rows), "a picture came twice"
    return found


@pytest.mark.slow
def test_pictures_from_everywhere_get_the_captions_of_this_process(
    command: Command, pictures: list[Path], host: str, tmp_path: Path, tiny_checkpoint_file: Path
) -> None:
    pictures[5].write_bytes(BROKEN)
    data = [path.read_bytes() for path in pictures]
    shard = write_tar(tmp_path / "shard.tar", {f"{n}.jpg": data[n] for n in (0, 1, 5)})
    table = write_parquet(tmp_path / "table.parquet", {"image": [{"bytes": data[n], "path": None} for n in (2, 3, 5)]})
    same = {f"{shard}/{n}.jpg": n for n in (0, 1, 5)}
    same |= {f"{table}#{row}": n for row, n in enumerate((2, 3, 5))}
    same |= {str(path): n for n, path in enumerate(pictures)}
    same |= {f"{host}/pictures/{pictures[n].name}": n for n in (4, 5)}
    missing = [f"{host}/pictures/missing.jpg", str(tmp_path / "missing.jpg")]
    given = [shard, table, tmp_path / "pictures", *[name for name in same if "://" in name], *missing]

    fixed = ("--checkpoint", tiny_checkpoint_file, "--precision", "float32", "--num-captions", 2)
    output = tmp_path / "out"
    status, _, errors = command("cluster", *given, *fixed, "-o", output, "-f", "jsonl")
    assert status == 1, errors
    assert f"{len(same) - 4} captioned, 6 failed" in errors
    assert sorted(path.name for path in output.iterdir()) == ["_SUCCESS", "_settings.json", "part-00000.jsonl"]
    rows = by_path([json.loads(line) for line in (output / "part-00000.jsonl").read_text().splitlines()])
    assert list(rows) == [*same.keys(), *missing]
    options = captioner.DecodeOptions(num_captions=2)
    for name, number in same.items():
        if number == 5:
            assert rows[name]["error"].startswith(f"{name}: not a picture")
        else:
            expected = captioner.load(tiny_checkpoint_file, precision="float32").caption(pictures[number], options)
            assert rows[name]["caption"] == expected.text
            assert [other["caption"] for other in rows[name]["alternatives"]] == [expected.alternatives[0].text]
    assert all("no such file" in rows[name]["error"] for name in missing)


@pytest.mark.slow
def test_vectors_beside_captions_are_those_of_the_reader(
    command: Command, pictures: list[Path], tmp_path: Path, finder_checkpoint_file: Path
) -> None:
    pictures[2].write_bytes(BROKEN)
    fixed = ("--checkpoint", finder_checkpoint_file, "--precision", "float32", "--batch-size", 3)
    status, _, errors = command("cluster", tmp_path / "pictures", *fixed, "--index", "-o", tmp_path / "out")
    assert status == 1, errors
    rows = by_path(pq.read_table(tmp_path / "out").to_pylist())
    assert list(rows) == [str(path) for path in pictures]
    broken, model = rows.pop(str(pictures[2])), captioner.load(finder_checkpoint_file, precision="float32")
    assert broken["error"]
    assert broken["vector"] is None
    expected = model.reader().pictures(model.encode(list(rows)))
    np.testing.assert_allclose([row["vector"] for row in rows.values()], expected, atol=1e-5)
    assert [row["caption"] for row in rows.values()] == [each.text for each in model.caption_batch(list(rows))]
    kind = pq.read_schema(tmp_path / "out" / "part-00000.parquet").field("vector").type
    assert kind.equals(pa.list_(pa.float32(), model.reader().size))


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """A value in the environment of every process that a test starts."""
    value = os.urandom(8).hex()
    monkeypatch.setenv("CAPTIONER_TEST", value)
    return value


@pytest.fixture(params=["worker", "node"])
def kill(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, mark: str
) -> Iterator[Callable[[set[int]], None]]:
    """What takes a worker away: a signal, or the end of one of the two nodes of a cluster."""
    if request.param == "worker":
        yield lambda workers: os.kill(min(workers), signal.SIGKILL)
        return
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield lambda _: cluster.remove_node(node, allow_graceful=False)
    cluster.shutdown()


@pytest.mark.slow
def test_what_is_killed_costs_no_row_and_makes_none_twice(
    request: pytest.FixtureRequest,
    many: list[Path],
    tiny_checkpoint_file: Path,
    mark: str,
    kill: Callable[[set[int]], None],
) -> None:
    folder = many[0].parent
    fixed = ["--checkpoint", tiny_checkpoint_file, "--precision", "float32", "--batch-size", "1"]
    fixed += ["--beam-size", "100", "--num-captions", "20", "--max-length", "200"]  # so that it takes a while
    start, arguments = [sys.executable, "-m", "captioner"], [str(folder), *map(str, fixed)]
    local = subprocess.run([*start, "caption", *arguments, "-f", "jsonl"], capture_output=True, text=True, check=False)

    output = folder.parent / "out"
    command = [*start, "cluster", *arguments, "--workers", "2", "-o", str(output)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr
        for line in run.stderr:
            if "009.jpg: not a picture" in line:
                break
        first = workers_of(mark)
        assert len(first) == 2
        kill(first)
        seen = set(first)
        while run.poll() is None:
            seen |= workers_of(mark)
            time.sleep(0.1)
        rest = run.stderr.read()
    assert run.returncode == 1, rest
    assert "199.jpg: not a picture" in rest, "all was done before the kill"
    # The loss of a node is noticed late. By then the other worker may have done all, also what the lost one had begun.
    assert len(seen) == 3 or "node" in request.node.name, "no worker was started in place of the killed one"
    assert "198 captioned, 2 failed" in rest
    assert json.loads((output / "_SUCCESS").read_text()) == {"rows": 200, "failed": 2, "files": 1}
    rows = by_path(pq.read_table(output).to_pylist())
    assert list(rows) == [str(path) for path in many]
    assert [path for path, row in rows.items() if row["error"]] == [str(many[9]), str(many[199])]
    for expected in map(json.loads, local.stdout.splitlines()):
        row = rows[expected["path"]]
        # A column of a table is there for every caption: what is not known of this one is empty.
        row["alternatives"] = [{key: each[key] for key in expected["alternatives"][0]} for each in row["alternatives"]]
        assert {key: row[key] for key in expected} == expected


@pytest.mark.slow
def test_after_a_killed_run_the_same_command_adds_what_is_missing(many: list[Path], tiny_checkpoint_file: Path) -> None:
    folder, output = many[0].parent, many[0].parent.parent / "out"
    small = "import sys, captioner.bulk.shards as shards; shards.ROWS = 8; from captioner.cli.main import main; "
    code = f"{small} sys.exit(main(sys.argv[1:]))"
    fixed = ["--checkpoint", str(tiny_checkpoint_file), "--precision", "float32", "--batch-size", "1", "--workers", "1"]
    fixed += ["--beam-size", "100", "--max-length", "200"]  # so that it takes a while
    command = [sys.executable, "-c", code, "cluster", str(folder), *fixed, "-o", str(output)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while not (output / "part-00002.parquet").exists():
            assert run.poll() is None
            time.sleep(0.02)
        run.kill()
    assert not (output / "_SUCCESS").exists(), "all was done before the kill"
    parts = {path: path.read_bytes() for path in output.glob("part-*")}
    kept = [row["path"] for row in pq.read_table(output).to_pylist() if not row["error"]]

    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 1, again.stderr
    assert f"captioned before: {len(kept)} of 200 pictures" in again.stderr
    assert f"{198 - len(kept)} captioned, 2 failed" in again.stderr
    assert json.loads((output / "_SUCCESS").read_text())["rows"] == 200
    rows = by_path(pq.read_table(output).to_pylist())
    assert rows.keys() == set(map(str, many))
    assert {path for path, row in rows.items() if row["error"]} == {str(many[9]), str(many[199])}
    changed = [path for path, content in parts.items() if path.read_bytes() != content]
    assert len(changed) == 1, "only the part with the error of 009.jpg, which was tried again"

    for index in (9, 199):
        draw_picture(index).save(many[index])
    last = subprocess.run(command, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    assert "captioned before: 198 of 200 pictures" in last.stderr
    rows = by_path(pq.read_table(output).to_pylist())
    assert rows.keys() == set(map(str, many))
    assert not any(row["error"] for row in rows.values())
    nothing = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (nothing.returncode, "workers" in nothing.stderr) == (0, False)


@pytest.mark.slow
def test_what_kills_every_worker_comes_to_an_end(
    command: Command, pictures: list[Path], tmp_path: Path, tiny_checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python runs this file when it starts, also in workers.
    end = "os._exit(9) if event == 'open' and str(given[0]).endswith('picture3.jpg') else None"
    code = f"import os, sys\nsys.addaudithook(lambda event, given: {end})\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    fixed = ("--checkpoint", tiny_checkpoint_file, "--batch-size", 1)
    status, _, errors = command("cluster", *pictures, *fixed, "-o", tmp_path / "out")
    assert status == 2
    assert "unit 0, {'paths': ['" in errors
    assert "ended 6 workers" in errors
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def workers_of(mark: str) -> set[int]:
    """The processes of Ray's workers with the model in them, by a variable of their environment."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"CAPTIONER_TEST={mark}".encode() in (process / "environ").read_bytes().split(b"\0")
            if ours and b"ray::Worker" in (process / "cmdline").read_bytes():
                found.add(int(process.name))
        except OSError:  # gone
            pass
    return found
