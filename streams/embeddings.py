"""A user's vector as it lies in Redis for applications: a header, then `d` numbers in float16 (docs/contract.md)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

VERSION = 1
HEADER = np.dtype(
    [
        ("v", "<u2"),
        ("d", "<u2"),
        ("partition", "<u4"),
        ("offset", "<i8"),  # of the user's last event that the vector knows
        ("time", "<i8"),  # of that event, epoch ms
        ("model", "S24"),  # the release, whose item vectors it belongs with
    ]
)


class Embedding(NamedTuple):
    """`vector` (d,) float16 belongs with the item vectors of the release `model`, and with no others."""

    model: str
    as_of: tuple[int, int, int]  # partition, offset, event time in ms
    vector: np.ndarray


def write(model: str, as_of: tuple[int, int, int], vector: np.ndarray) -> bytes:
    """The bytes of one; numbers beyond float16 become its largest."""
    header = np.array((VERSION, len(vector), *as_of, model.encode()), HEADER)
    most = np.finfo(np.float16).max
    return bytes(header.tobytes() + np.clip(vector, -most, most).astype("<f2").tobytes())


def read(data: bytes) -> Embedding:
    """What `write` wrote; raises ValueError for anything else."""
    if len(data) < HEADER.itemsize or data[:2] != VERSION.to_bytes(2, "little"):
        raise ValueError(f"{len(data)} bytes that begin with {data[:2]!r} are no embedding of version {VERSION}")
    header = np.frombuffer(data, HEADER, 1)[0]
    vector = np.frombuffer(data, "<f2", offset=HEADER.itemsize)
    if len(vector) != header["d"]:
        raise ValueError(f"an embedding of {header['d']} numbers has {len(vector)}")
    as_of = (int(header["partition"]), int(header["offset"]), int(header["time"]))
    return Embedding(header["model"].decode(), as_of, vector)
