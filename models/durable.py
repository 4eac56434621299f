"""Files that are there whole or not at all, a kill or a power cut at any moment notwithstanding."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

#: What a killed writer has left ends in this; whoever reads a folder passes it over.
SCRATCH = ".tmp"


def put(path: Path, write: Callable[[Path], object]) -> None:
    """Make or replace a file: `write` is given a scratch path beside it; what it wrote is on the disk before it has the name.

    The name itself lasts from the next `sync_folder` on. Raises what `write` raises, and OSError; then the old file stands.
    """
    scratch = path.with_name(path.name + SCRATCH)
    try:
        write(scratch)
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def put_bytes(path: Path, data: bytes) -> None:
    """`put` of what is in memory already."""
    put(path, lambda scratch: scratch.write_bytes(data))


def sync_folder(folder: Path) -> None:
    """Names survive a power cut only where their folder was synced."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
