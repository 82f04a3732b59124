"""Measure `captioner serve` under load: latency, throughput beside the folder command's, memory, and a stop midway.

    python benchmarks/serving.py [--clients 32] [--seconds 120] [--pictures 200] [--path /caption]

Clients in a process of their own ask for captions of small JPEGs, each the next one as soon as it has its answer. They
share the processors with the server. Before and after that, the folder's pictures are captioned by `caption_files`.
Then the server is started again, and gets SIGTERM while the clients go on asking: every request that it took must be
answered.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from speed import make_pictures

FOLDER = """
import sys, time, captioner
model, paths = captioner.load(), sys.argv[1:]
list(model.caption_files(paths[:64]))
start = time.perf_counter()
list(model.caption_files(paths * 3))
print(3 * len(paths) / (time.perf_counter() - start))
"""


class Server:
    """`captioner serve` in a process of its own."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "captioner", "serve", "--port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        said = self.process.stderr.readline()
        found = re.search(r"http://(\S+?),", said)
        assert found, said
        self.place = found[1]

    def metric(self, name: str) -> float:
        """A figure that the server tells of itself."""
        with urllib.request.urlopen(f"http://{self.place}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))

    def stop(self) -> tuple[int, int]:
        """Stop it; the exit status, and how many requests it says that it has answered."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stderr
        said = self.process.stderr.read()
        found = re.search(r"([\d,]+) requests? answered", said)
        return self.process.wait(), int(found[1].replace(",", "")) if found else -1


class Clients:
    """Threads that ask until they are told to end, or until the server takes no more."""

    def __init__(self, place: str, number: int, path: str, bodies: list[bytes]) -> None:
        self.place, self.path, self.bodies = place, path, bodies
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self.cut_off: list[bytes] = []  # what came of answers that broke off
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._ask, args=(index,)) for index in range(number)]
        for thread in self.threads:
            thread.start()

    def _ask(self, index: int) -> None:
        connection = http.client.HTTPConnection(self.place, timeout=300)
        while not self.over.is_set():
            body, index = self.bodies[index % len(self.bodies)], index + 1
            start = time.perf_counter()
            try:
                connection.request("POST", self.path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
            except OSError:  # it does not listen any more, or has closed a connection on which nothing was going on
                return
            try:
                content = answer.read()
            except http.client.IncompleteRead as error:
                self.cut_off.append(error.partial)
                return
            self.seconds.append(time.perf_counter() - start)
            if answer.status != 200:
                self.failures.append(f"{answer.status}: {content[:200].decode()}")
            if answer.will_close:
                connection.close()

    def end(self) -> None:
        """Wait for the last answers."""
        self.over.set()
        for thread in self.threads:
            thread.join()


def bodies_of(path: str, pictures: list[Path]) -> list[bytes]:
    """Requests in the dialect of a path."""
    form: dict[str, Callable[[str], object]] = {
        "/caption": lambda image: {"image": image},
        "/api/generate": lambda image: {"model": "captioner", "images": [image], "stream": False},
    }
    return [json.dumps(form[path](base64.b64encode(file.read_bytes()).decode())).encode() for file in pictures]


def folder(pictures: list[Path]) -> None:
    """Caption the folder three times over; print a row."""
    command = [sys.executable, "-c", FOLDER, *map(str, pictures)]
    speed = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(f"| pictures/s of the same folder, `caption_files` | {speed:.0f} |", flush=True)


def load(clients: int, seconds: float, path: str, bodies: list[bytes]) -> None:
    """Ask for so many seconds; print rows."""
    server = Server()
    try:
        warm = Clients(server.place, clients, path, bodies)
        time.sleep(min(5.0, seconds))
        warm.end()
        start, asking = time.perf_counter(), Clients(server.place, clients, path, bodies)
        time.sleep(seconds)
        asking.end()
        took = time.perf_counter() - start
        memory, batches = (
            server.metric("process_resident_memory_bytes") / 1e6,
            server.metric("captioner_batch_pictures_count"),
        )
        pictures = server.metric("captioner_pictures_total")
    finally:
        server.stop()
    places = statistics.quantiles(asking.seconds, n=100)
    print(f"| pictures/s, {clients} clients for {took:.0f} s | {len(asking.seconds) / took:.0f} |")
    print(f"| latency, p50 / p99 / longest | {places[49]:.3f} / {places[98]:.3f} / {max(asking.seconds):.3f} s |")
    print(f"| requests that failed, of {len(asking.seconds):,} | {len(asking.failures)} |")
    print(f"| pictures of a batch, mean | {pictures / batches:.1f} |")
    print(f"| the server's memory at the end | {memory:.0f} MB |")
    print(*asking.failures[:5], sep="\n", file=sys.stderr)


def alone(path: str, bodies: list[bytes]) -> None:
    """One client; print a row."""
    server = Server()
    try:
        asking = Clients(server.place, 1, path, bodies)
        time.sleep(10.0)
        asking.end()
    finally:
        server.stop()
    print(f"| latency of a client that is alone, p50 | {statistics.median(asking.seconds[5:]):.3f} s |")


def stop_midway(clients: int, path: str, bodies: list[bytes]) -> None:
    """Stop the server while clients ask; print a row."""
    server = Server()
    asking = Clients(server.place, clients, path, bodies)
    time.sleep(10.0)
    status, answered = server.stop()
    asking.end()
    got, broken = len(asking.seconds), len(asking.cut_off) + len(asking.failures)
    print(f"| stopped by SIGTERM: answers sent / received / broken | {answered:,} / {got:,} / {broken} |")
    assert (status, broken) == (0, 0), status
    assert answered == got


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--path", default="/caption", choices=("/caption", "/api/generate"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        make_pictures(Path(name), args.pictures, 0)
        pictures = sorted(Path(name, "small").iterdir())
        bodies = bodies_of(args.path, pictures)
        print(f"load average before: {os.getloadavg()[0]:.1f}", file=sys.stderr)
        print("| what is measured | result |\n|---|---:|")
        folder(pictures)
        alone(args.path, bodies)
        load(args.clients, args.seconds, args.path, bodies)
        folder(pictures)
        stop_midway(args.clients, args.path, bodies)


if __name__ == "__main__":
    main()
