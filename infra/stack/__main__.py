"""`python -m infra.stack`: fetches what the local stack needs and starts nothing; `make setup` calls it."""

from __future__ import annotations

import subprocess
import sys

from infra.settings import StreamrecError, stack_home
from infra.stack.docker import COMPOSE_FILE
from infra.stack.jars import find_java, resolve_jars
from infra.stack.local import missing_requirements
from infra.stack.process import StackError


def prepare() -> None:
    """Jars by Maven, or images by Docker where Java is absent."""
    if missing := missing_requirements():
        raise StackError(missing)
    if find_java():
        resolve_jars(stack_home())
        return
    done = subprocess.run(["docker", "compose", "--file", str(COMPOSE_FILE), "pull", "--quiet"], env=None, text=True,
                          stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise StackError(f"docker cannot fetch the images: {done.stderr.strip()[-300:]}")


if __name__ == "__main__":
    try:
        prepare()
    except StreamrecError as error:
        sys.exit(f"setup: {error}")
