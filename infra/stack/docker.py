"""The same two servers as containers, for machines with Docker but without Java, Maven or a redis-server."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from infra.stack.process import Server, StackError, free_port, port_is_free

COMPOSE_FILE = Path(__file__).parent / "compose.yml"
DOCKER_DEADLINE_S = 600  # the first time it fetches the images


def docker_works() -> bool:
    """True if the docker command is there, has compose, and reaches its service."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        return all(subprocess.run([docker, *question], capture_output=True, timeout=20).returncode == 0
                   for question in (["compose", "version"], ["info"]))
    except (OSError, subprocess.TimeoutExpired):
        return False


class DockerServer(Server):
    """One service of the compose file beside this module; the same verbs as a server process."""

    def __init__(self, home: Path, name: str, *, port: int | None = None) -> None:
        super().__init__(home, port=port)
        self.name = name
        # the project's name tells apart the stacks of several folders
        self._project = f"streamrec-{name}-{hashlib.sha256(str(home).encode()).hexdigest()[:8]}"

    @property
    def url(self) -> str:
        """Address in the form of the setting redis_url."""
        return f"redis://{self.address}/0"

    @property
    def alive(self) -> bool:
        return self.port is not None and bool(self._compose("ps", "-q", "--status", "running", "--status", "paused").strip())

    def start(self) -> None:
        if self.port is None:
            self.port = free_port()
        elif not self.alive and not port_is_free(self.port):
            raise StackError(f"port {self.port} for {self.name} is taken by another program; end that one, or give another port")
        self.on_change()
        self._compose("up", "--detach", "--wait", self.name)

    def stop(self) -> None:
        self._compose("down")

    def kill(self) -> None:
        if self.alive:
            self._compose("kill", self.name)

    def wipe(self) -> None:
        self._compose("down", "--volumes")

    def pause(self) -> None:
        self._compose("pause", self.name)

    def resume(self) -> None:
        self._compose("unpause", self.name)

    def note(self) -> dict[str, Any]:
        place = {"bootstrap": self.address} if self.name == "kafka" else {"url": self.url}
        return {**place, **super().note()}

    def _compose(self, *verb: str) -> str:
        self.home.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["docker", "compose", "--project-name", self._project, "--file", str(COMPOSE_FILE), *verb],
                              env={**os.environ, "PORT": str(self.port)},
                              capture_output=True, text=True, timeout=DOCKER_DEADLINE_S)
        if done.returncode != 0:
            raise StackError(f"docker compose {verb[0]} of {self.name} failed: {done.stderr.strip()[-300:]}")
        return done.stdout

    def command(self) -> list[str]:
        return []

    def ready(self) -> bool:
        return self.alive

    def marks(self) -> list[str]:
        return []
