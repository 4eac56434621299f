"""Where a worker's time goes: py-spy beside a measured run, where it is installed (`pip install py-spy`).

Out: collapsed stacks in a file, which speedscope and flamegraph.pl read, and on stderr the functions that took most by
themselves. Sampling costs a few per cent and needs the right to trace: figures of a profiled run are for explaining only.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks._claims import BenchmarkError, say

RATE = 200  # samples/s
SHOWN = 20
LINE = re.compile(r":\d+\)$")


@contextlib.contextmanager
def profiled(folder: Path | None, pid: int, name: str) -> Iterator[None]:
    """Samples process `pid` for as long as the body runs; does nothing where no folder is given."""
    if folder is None:
        yield
        return
    if shutil.which("py-spy") is None:
        raise BenchmarkError("--profile needs py-spy, which is not on the PATH; pip install py-spy")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.stacks"
    # -t: the consumer thread and the main loop share one interpreter, which of them holds it is the question
    spy = subprocess.Popen(["py-spy", "record", "--pid", str(pid), "--rate", str(RATE), "--duration", "3600", "--threads", "--gil",
                            "--nonblocking", "--format", "raw", "--output", str(file)],
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        if spy.poll() is None:
            spy.send_signal(signal.SIGINT)
        _, complaint = spy.communicate(timeout=60)
    if not file.exists():
        raise BenchmarkError(f"py-spy could not sample the worker: {complaint.strip()[-300:]}")
    say(f"stacks in {file}; most of the interpreter's time by function:")
    for line in top(file):
        say("  " + line)


def top(file: Path) -> list[str]:
    """The functions that took most by themselves, each with its share of the samples, and that with what it called."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        functions = [LINE.sub(")", frame) for frame in stack.split(";")]
        own[functions[-1]] += int(count)
        for function in set(functions):
            whole[function] += int(count)
    total = sum(own.values()) or 1
    shares = [f"{100 * count / total:5.1f}%  {100 * whole[function] / total:5.1f}%  {function}"
              for function, count in own.most_common(SHOWN)]
    return ["  own   with callees", *shares]
