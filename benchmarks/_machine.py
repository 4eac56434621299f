"""On what a figure was measured: processor, cores, load before, versions of everything that takes part."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version

from infra.settings import stack_home
from infra.stack.jars import find_java, jars_folder
from infra.stack.redis import find_redis

PACKAGES = ("streamrec", "faust-streaming", "aiokafka", "redis", "msgspec", "numpy", "numba")
BUSY = 0.5  # load a core before the start from which on a figure is not one of a quiet machine


def machine() -> str:
    """Processor, cores, memory, load average before the run."""
    cores = os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    busy = " (NOT QUIET: others work on this machine)" if load > BUSY * cores else ""
    system = f"{platform.system()} {platform.release()}"
    return f"{_processor()}, {cores} cores, {memory:.0f} GiB, {system}, load {load:.2f} before{busy}"


def versions() -> str:
    """Python, our packages, and the servers."""
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # run from a checkout that is not installed
            continue
    return ", ".join([*found, *_servers()])


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as info:
            found = re.search(r"model name\s*: (.+)", info.read())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _servers() -> list[str]:
    found = []
    jars = jars_folder(stack_home())
    for jar in jars.glob("kafka_2*.jar") if jars.is_dir() else ():
        found.append("Kafka " + jar.stem.partition("-")[2])
    if (redis := find_redis()) and (said := _first(r"v=([\d.]+)", [redis, "--version"])):
        found.append(f"Redis {said}")
    if (java := find_java()) and (said := _first(r'version "([\d.]+)', [java, "-version"])):
        found.append(f"Java {said}")
    return found


def _first(pattern: str, command: list[str]) -> str | None:
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else None
