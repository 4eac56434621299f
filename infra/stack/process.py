"""A server process of the local stack: started detached, found again by its note, ended only if it is still ours.

In: a command, a log file, a test of readiness. Out: a running process whose id and start time fit in a JSON note, so that
another process (`streamrec down`, tomorrow) can end exactly this one and never a stranger that got the same number.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from infra.settings import StreamrecError

# Below the range from which systems take ports for outgoing connections (32768 up): a client that keeps trying a port of
# that range while its server restarts can be given that very port as its own, and then talks to itself.
FREE_PORTS = range(15_000, 30_000)
START_TIME_TOLERANCE_S = 2.0  # the start time of a process is counted in ticks since boot; clocks are adjusted meanwhile
KILL_WAIT_S = 10.0  # after SIGKILL only a disk that hangs keeps a process
POLL_S = 0.02
PR_SET_PDEATHSIG = 1


class StackError(StreamrecError):
    """The local servers cannot be started or stopped."""


class Server(ABC):
    """One server on a loopback port with data in its own folder; start, stop, kill and pause keep data and port."""

    name = "server"
    start_deadline_s = 60.0
    stop_deadline_s = 20.0

    def __init__(self, home: Path, *, port: int | None = None, die_with_parent: bool = False) -> None:
        self.home = home
        self.port = port
        self.pid: int | None = None
        self.started_at = 0.0
        self.on_change: Callable[[], None] = lambda: None  # called with each new process, so that the note stays true
        self._die_with_parent = die_with_parent
        self._log_start = 0

    @abstractmethod
    def command(self) -> list[str]:
        """Writes the configuration and returns the command; called before every start."""

    @abstractmethod
    def ready(self) -> bool:
        """True once the server answers."""

    @abstractmethod
    def marks(self) -> list[str]:
        """Texts of which one stands in our process's command line and in no stranger's."""

    @property
    def address(self) -> str:
        """host:port of the server."""
        if self.port is None:
            raise StackError(f"{self.name} has no port yet; start the stack first")
        return f"127.0.0.1:{self.port}"

    @property
    def log_file(self) -> Path:
        """What the server says."""
        return self.home / f"{self.name}.log"

    @property
    def alive(self) -> bool:
        """True while the process we started runs (paused counts)."""
        return self._process() is not None

    def note(self) -> dict[str, Any]:
        """What another process needs to find the server again."""
        return {"port": self.port, "pid": self.pid, "started_at": self.started_at}

    def adopt(self, note: dict[str, Any]) -> None:
        """Takes over what `note()` gave; a dead process leaves its port, so that data comes up where it was."""
        self.pid, self.started_at = note.get("pid"), float(note.get("started_at", 0.0))
        self.port = note.get("port", self.port)

    def start(self) -> None:
        """Starts the process, detached, and waits until it answers; does nothing where it runs already."""
        if self.alive:
            return
        self.home.mkdir(parents=True, exist_ok=True)
        if self.port is None:
            self.port = free_port()
        elif not port_is_free(self.port):
            raise StackError(f"port {self.port} for {self.name} is taken by another program; end that one, or give another port")
        command = self.command()
        self._log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home,
                                       start_new_session=True,
                                       preexec_fn=die_with_parent if self._die_with_parent else None)
        self.pid, self.started_at = process.pid, psutil.Process(process.pid).create_time()
        self.on_change()  # before it answers: should this process be killed now, `down` still finds the server
        deadline = time.monotonic() + self.start_deadline_s
        while not self.ready():
            if process.poll() is not None:
                self.pid = None
                raise StackError(f"{self.name} ended with code {process.returncode} while starting: {self._last_words()}; "
                                 f"the whole log is {self.log_file}")
            if time.monotonic() > deadline:
                self.kill()
                raise StackError(f"{self.name} did not answer within {self.start_deadline_s:.0f} s; its log is {self.log_file}")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Ends the process in order, and by force after a deadline."""
        self.resume()
        self._end(signal.SIGTERM, self.stop_deadline_s)

    def kill(self) -> None:
        """Ends the process at once, as a power cut would (except that the disk cache survives)."""
        self._end(signal.SIGKILL, KILL_WAIT_S)

    def wipe(self) -> None:
        """Removes data, configuration and log of the stopped server."""
        shutil.rmtree(self.home, ignore_errors=True)

    def pause(self) -> None:
        """Stops the process without ending it; `resume` lets it go on."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused process go on."""
        self._signal(signal.SIGCONT)

    def _end(self, how: signal.Signals, deadline_s: float) -> None:
        process = self._process()
        if process is not None:
            process.send_signal(how)
            try:
                process.wait(deadline_s)
            except psutil.TimeoutExpired:
                process.kill()
                try:
                    process.wait(KILL_WAIT_S)
                except psutil.TimeoutExpired:
                    raise StackError(f"{self.name} (process {process.pid}) does not end; it hangs in the system") from None
        self.pid = None

    def _signal(self, number: signal.Signals) -> None:
        process = self._process()
        if process is not None:
            process.send_signal(number)

    def _process(self) -> psutil.Process | None:
        if self.pid is None:
            return None
        try:
            process = psutil.Process(self.pid)
            ours = (abs(process.create_time() - self.started_at) < START_TIME_TOLERANCE_S
                    and process.status() != psutil.STATUS_ZOMBIE
                    and any(mark in " ".join(process.cmdline()) for mark in self.marks()))
        except psutil.Error:
            return None
        return process if ours else None

    def said(self, text: str) -> bool:
        """True if the log has this text since the last start."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            return text.encode() in log.read()

    def _last_words(self) -> str:
        lines = self.log_file.read_text(errors="replace").splitlines()[-3:]
        return " / ".join(line.strip()[:200] for line in lines) or "it said nothing"


def free_port() -> int:
    """A port of the loopback address on which nobody listens."""
    for port in random.sample(FREE_PORTS, 200):
        if port_is_free(port):
            return port
    raise StackError(f"of 200 ports tried between {FREE_PORTS.start} and {FREE_PORTS.stop} none is free; give one yourself")


def port_is_free(port: int) -> bool:
    """True if a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: connections that fade don't count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def answers(port: int, ask: bytes = b"", expect: Callable[[bytes], bool] | None = None) -> bool:
    """True if something listens on the loopback port, and, where asked, says what is expected."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            if not ask or expect is None:
                return True
            connection.sendall(ask)
            return expect(connection.recv(256))
    except OSError:
        return False


def die_with_parent() -> None:
    """Runs in a child before its command: the kernel ends it with the thread that started it, however that ends.

    For tests and demos, which must leave nothing behind even when killed. Linux only; elsewhere orderly ends must do.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:  # the parent was gone before the call
            os._exit(1)
