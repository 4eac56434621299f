"""The local stack: Kafka and Redis on free loopback ports, data under one folder, found again by its note `stack.json`.

`streamrec up` and `down`, the demo, the benchmarks and the tests all use this class:

    with LocalStack(folder) as stack:          # start() ... stop()
        settings = stack.settings(prefix="trial.")
        stack.redis.kill(); stack.redis.start()   # same port, same data
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.settings import STACK_FILE, Settings, stack_home
from infra.stack.docker import DockerServer, docker_works
from infra.stack.jars import find_java, jars_folder
from infra.stack.kafka import KafkaServer
from infra.stack.process import Server, StackError, port_is_free
from infra.stack.redis import RedisServer, find_redis

NATIVE, DOCKER = "native", "docker"


class LocalStack:
    """One Kafka and one Redis that belong to one folder.

    home: folder of everything, default $STREAMREC_HOME or ./.streamrec; jars_home: where Kafka's jars lie or are put,
    default home (tests share one); die_with_parent: the servers end with this process, however it ends.
    """

    def __init__(self, home: Path | None = None, *, jars_home: Path | None = None, kafka_port: int | None = None,
                 redis_port: int | None = None, die_with_parent: bool = False) -> None:
        self.home = (home or stack_home()).absolute()
        self._jars_home = jars_home or self.home
        note = self._read_note()
        self.backend: str = note.get("backend", "") or self._choose_backend()
        self.kafka: KafkaServer | DockerServer
        self.redis: RedisServer | DockerServer
        if self.backend == DOCKER:
            self.kafka, self.redis = (DockerServer(self.home / name, name, port=port)
                                      for name, port in (("kafka", kafka_port), ("redis", redis_port)))
        else:
            self.kafka = KafkaServer(self.home / "kafka", jars_home=self._jars_home, port=kafka_port,
                                     die_with_parent=die_with_parent)
            self.redis = RedisServer(self.home / "redis", port=redis_port, die_with_parent=die_with_parent)
        for server in self._servers:
            server.on_change = self._write_note
            if server.name in note:
                server.adopt(note[server.name])

    @property
    def _servers(self) -> list[Server]:
        return [self.redis, self.kafka]  # Redis is there at once: what is wrong with it shows before Kafka's 4 s

    @property
    def running(self) -> bool:
        """True if both servers run."""
        return all(server.alive for server in self._servers)

    @property
    def note_file(self) -> Path:
        """Where addresses and process ids stand; `Settings.load` reads it."""
        return self.home / STACK_FILE

    @property
    def _ports_file(self) -> Path:
        return self.home / "ports.json"

    def _port_of_before(self, server: Server) -> int | None:
        """So that a worker or an application that waits for the servers finds them when they come back."""
        try:
            port = json.loads(self._ports_file.read_text())[server.name]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return port if isinstance(port, int) and port_is_free(port) else None

    def settings(self, **overrides: Any) -> Settings:
        """Settings that lead to this stack; the environment does not count."""
        return Settings.load({"STREAMREC_HOME": str(self.home)}, **overrides)

    def start(self) -> None:
        """Starts what does not run, keeping data and ports; on failure nothing that this call started stays behind."""
        with self._lock():
            started: list[Server] = []
            try:
                for server in self._servers:
                    if not server.alive:
                        server.port = server.port or self._port_of_before(server)
                        started.append(server)
                        server.start()
            except BaseException:
                for server in started:
                    server.kill()
                if any(server.alive for server in self._servers):
                    self._write_note()
                else:
                    self.note_file.unlink(missing_ok=True)
                raise

    def stop(self, *, wipe: bool = False) -> None:
        """Ends both servers, waits for them, removes the note; wipe: the data too."""
        with self._lock():
            for server in reversed(self._servers):
                server.stop()
            self._ports_file.write_text(json.dumps({server.name: server.port for server in self._servers}) + "\n")
            self.note_file.unlink(missing_ok=True)
            if wipe:
                self._ports_file.unlink()
                for server in self._servers:
                    server.wipe()

    def __enter__(self) -> LocalStack:
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()

    def _choose_backend(self) -> str:
        if find_java() and (shutil.which("mvn") or jars_folder(self._jars_home).is_dir()) and find_redis():
            return NATIVE
        if docker_works():
            return DOCKER
        return NATIVE  # its start() says what is missing; `check_requirements` says it beforehand

    def _read_note(self) -> dict[str, Any]:
        try:
            note = json.loads(self.note_file.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StackError(f"{self.note_file} cannot be read ({error}); end the servers in it by hand and remove it") from error
        return note if isinstance(note, dict) else {}

    def _write_note(self) -> None:
        note: dict[str, Any] = {"backend": self.backend, "home": str(self.home)}
        note |= {server.name: server.note() for server in self._servers if server.port is not None}
        scratch = self.note_file.with_suffix(".new")
        scratch.write_text(json.dumps(note, indent=2) + "\n")
        os.replace(scratch, self.note_file)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Two `up` at once would start two brokers on one data folder."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # the other may have started or stopped servers while we waited
            note = self._read_note()
            for server in self._servers:
                if server.name in note and not server.alive:
                    server.adopt(note[server.name])
            yield


def missing_requirements(jars_home: Path | None = None) -> str:
    """One sentence that says what the local stack lacks on this machine and how to get it; empty if nothing."""
    java, redis = find_java(), find_redis()
    maven = shutil.which("mvn") or jars_folder(jars_home or stack_home()).is_dir()
    if (java and maven and redis) or docker_works():
        return ""
    lacking = [name for name, there in (("Java 17 or newer", java), ("Maven", maven), ("a redis-server", redis)) if not there]
    return (f"the local stack lacks {' and '.join(lacking)}, and there is no working Docker to take its place; install "
            "Java and Maven (Debian, Ubuntu: apt install default-jre-headless maven; macOS: brew install openjdk maven), "
            "pip install 'streamrec[stack]' for Redis, or install Docker, then try again")
