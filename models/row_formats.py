"""Rows of several versions read as rows of one: of the version that a worker writes, and of older ones that it knows how to lift.

A row begins with its version, two bytes. A layout that changes gets the next number, and the one before goes into `older` with the function that
makes new rows from old ones; so workers are upgraded without building state anew (docs/operations.md, Upgrades).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Older(NamedTuple):
    """A version that is read and not written: its layout, and what makes rows (n,) of the next version from rows (n,) of it."""

    dtype: np.dtype
    lift: Callable[[np.ndarray], np.ndarray]


class RowFormat(NamedTuple):
    """What is written, and what is read besides."""

    version: int
    dtype: np.dtype
    older: Mapping[int, Older] = {}

    @property
    def readable(self) -> frozenset[int]:
        """Versions that can be read."""
        return frozenset({self.version, *self.older})


class UnknownRow(ValueError):
    """Bytes that are no row of a version that is known."""

    def __init__(self, data: bytes) -> None:
        self.version, self.n_bytes = version_of(data), len(data)
        super().__init__(f"version {self.version} with {self.n_bytes} bytes")


def version_of(data: bytes) -> int:
    """The version that a row says it is of."""
    return int.from_bytes(data[:2], "little")


def read(data: Sequence[bytes], rows: RowFormat) -> np.ndarray:
    """Rows of any readable version as rows (n,) of the one that is written; raises `UnknownRow`.

    >>> new = np.dtype([("version", "<u2"), ("n", "<u4")])
    >>> def lift(old: np.ndarray) -> np.ndarray:
    ...     return np.array([(2, n) for _, n in old], new)
    >>> read([b"\\x01\\x00\\x07"], RowFormat(2, new, {1: Older(np.dtype([("version", "<u2"), ("n", "u1")]), lift)})).tolist()
    [(2, 7)]
    """
    ours, size = rows.version.to_bytes(2, "little"), rows.dtype.itemsize
    others = [k for k, row in enumerate(data) if row[:2] != ours or len(row) != size]
    if others:
        data = list(data)
        for k in others:
            data[k] = _lifted(data[k], rows).tobytes()
    return np.frombuffer(b"".join(data), rows.dtype)


def _lifted(data: bytes, rows: RowFormat) -> np.ndarray:
    version = version_of(data)
    if version not in rows.older or len(data) != rows.older[version].dtype.itemsize:
        raise UnknownRow(data)
    row = np.frombuffer(data, rows.older[version].dtype)
    while version != rows.version:  # a step at a time: each version knows the one before it only
        row = rows.older[version].lift(row)
        version = int(row["version"][0])
    return row
