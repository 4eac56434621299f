"""Lists read over 8 closed-loop connections by a native load generator: `redis-benchmark`, where it is on the PATH.

It comes with Redis (Debian, Ubuntu: apt install redis-tools; macOS: brew install redis). Where it is missing a client in Python
does the same over bare sockets, and the figure says so: it takes more of the machine, and what it takes counts against us.
"""

from __future__ import annotations

import csv
import io
import random
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks._claims import BenchmarkError, quantile
from infra.settings import Settings

CONNECTIONS = 8
DIGITS = 12  # of user ids: redis-benchmark draws numbers of this length
HOW_TO_GET_IT = "redis-benchmark is not on the PATH (Debian, Ubuntu: apt install redis-tools)"


@dataclass(frozen=True, slots=True)
class Lookups:
    """What one round saw."""

    per_s: float
    p50_ms: float
    p99_ms: float
    worst_ms: float


def generator() -> tuple[str, Callable[[Settings, int, int], Lookups]]:
    """Its name, and a function (settings, users, calls) that runs one round."""
    if shutil.which("redis-benchmark"):
        return "redis-benchmark", _native
    return f"a client in Python over bare sockets, since {HOW_TO_GET_IT}", _python


def _native(settings: Settings, users: int, calls: int) -> Lookups:
    parts = urlsplit(settings.redis_url)
    done = subprocess.run(["redis-benchmark", "-h", str(parts.hostname), "-p", str(parts.port), "-c", str(CONNECTIONS),
                           "-n", str(calls), "-r", str(users), "--csv", "GET", settings.key("rec:__rand_int__")],
                          capture_output=True, text=True)
    rows = list(csv.DictReader(io.StringIO(done.stdout[done.stdout.find('"test"'):])))
    if done.returncode or not rows:
        raise BenchmarkError(f"redis-benchmark ended with code {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}; "
                             "version 6.2 or later is expected")
    row = rows[-1]
    return Lookups(float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"]), float(row["max_latency_ms"]))


def _python(settings: Settings, users: int, calls: int) -> Lookups:
    parts, rng = urlsplit(settings.redis_url), random.Random(1)
    connections = [socket.create_connection((parts.hostname, parts.port)) for _ in range(CONNECTIONS)]
    missing: dict[socket.socket, int] = {}
    asked: dict[socket.socket, float] = {}
    latencies: list[float] = []

    def ask(connection: socket.socket) -> None:
        key = settings.key(f"rec:{rng.randrange(users):0{DIGITS}d}").encode()
        missing[connection], asked[connection] = -1, time.perf_counter()
        connection.sendall(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key))

    began = time.perf_counter()
    for connection in connections:
        ask(connection)
    while len(latencies) < calls:
        for connection in select.select(connections, [], [])[0]:
            piece = connection.recv(1 << 16)
            if missing[connection] < 0:  # the first piece begins with the length
                head = piece.partition(b"\r\n")[0]
                missing[connection] = len(head) + 2 + max(0, int(head[1:]) + 2)
            missing[connection] -= len(piece)
            if missing[connection] <= 0:
                latencies.append(time.perf_counter() - asked[connection])
                ask(connection)
    seconds = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return Lookups(len(latencies) / seconds, *(quantile(latencies, share) * 1000 for share in (0.5, 0.99, 1.0)))
