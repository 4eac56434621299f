"""A worker as a subprocess, for tests, the demo and the benchmarks: `streamrec worker` with given settings, always ended.

In: settings and a folder for its log. Out: a process that can be stopped, killed, paused, and waited for.

    with WorkerProcess(settings, log_file=folder / "w1.log") as worker:
        worker.wait_ready(30.0)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.settings import Settings, StreamrecError
from infra.stack.process import die_with_parent

STOP_DEADLINE_S = 10.0  # a worker stops within 5 s of SIGTERM; what takes twice that is stuck
POLL_S = 0.02
ROOT = Path(__file__).parent.parent.parent


class WorkerError(StreamrecError):
    """A worker ended, or did not become ready."""


class WorkerProcess:
    """One worker; starts at once. It dies with the thread that created it, so create it in the main thread.

    env: more variables for it (STREAMREC_* come from the settings and win).
    """

    def __init__(self, settings: Settings, *, log_file: Path, env: Mapping[str, str] | None = None) -> None:
        self.settings = settings
        self.log_file = log_file
        log_file.parent.mkdir(parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMREC_")}
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "infra.cli", "worker"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**inherited, "PYTHONPATH": path, **(env or {}), **settings.environment()}, start_new_session=True,
                preexec_fn=die_with_parent)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True until the process has ended."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended; negative: by that signal."""
        return self._process.poll()

    @property
    def log(self) -> str:
        """All it has said."""
        return self.log_file.read_text(errors="replace")

    def state(self) -> dict[str, Any] | None:
        """Its latest entry in Redis (`workers:<id>`), found by process id; None before the first heartbeat."""
        import redis

        with redis.from_url(self.settings.redis_url, **self.settings.redis_client_args()) as client:
            for key in client.scan_iter(match=self.settings.key("workers:*"), count=1000):
                text = client.get(key)
                if text and (entry := json.loads(text)).get("pid") == self.pid:
                    return dict(entry)
        return None

    def wait_ready(self, deadline_s: float = 60.0) -> dict[str, Any]:
        """Waits until its heartbeat says ready; returns that entry."""
        deadline = time.monotonic() + deadline_s
        while True:
            if not self.alive:
                raise WorkerError(f"the worker ended with code {self.exit_code}; its log ends: {self.log[-2000:]}")
            entry = self.state()
            if entry and entry.get("ready"):
                return entry
            if time.monotonic() > deadline:
                raise WorkerError(f"the worker is not ready after {deadline_s:.0f} s (it says {entry}); "
                                  f"its log ends: {self.log[-2000:]}")
            time.sleep(POLL_S * 5)

    def stop(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """Ends it in order, by force after the deadline; returns its exit code (-9: it had to be forced)."""
        if self.alive:
            self.resume()
            self._process.terminate()
            try:
                self._process.wait(deadline_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.wait()

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: it holds what it has and does nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()
