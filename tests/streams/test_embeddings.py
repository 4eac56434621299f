"""Users' vectors as applications read them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from streams.embeddings import Embedding, read, write

VERSION = "20261122T112000Z-3fa2c1"
PAGE = (Path(__file__).parents[2] / "docs" / "contract.md").read_text()


def test_what_is_written_is_read() -> None:
    vector = np.linspace(-2, 2, 64).astype(np.float32)
    found = read(write(VERSION, (3, 2**40, 1_763_778_821_123), vector))
    assert (found.model, found.as_of) == (VERSION, (3, 2**40, 1_763_778_821_123))
    assert np.array_equal(found.vector, vector.astype(np.float16))
    assert np.isfinite(read(write(VERSION, (0, 0, 0), vector * 1e9)).vector).all()


@pytest.mark.parametrize("damage", [lambda d: b"", lambda d: d[:40], lambda d: d[:-2], lambda d: b"\2" + d[1:]])
def test_other_bytes_are_none(damage: object) -> None:
    with pytest.raises(ValueError, match="embedding"):
        read(damage(write(VERSION, (0, 0, 0), np.ones(8, np.float32))))  # type: ignore[operator]


def test_the_pages_way_to_read_one_is_right() -> None:
    data = write(VERSION, (3, 5, 7), np.arange(300, dtype=np.float32))
    line = next(text for text in re.findall(r"^d, model, user = .*$", PAGE, re.MULTILINE))
    found: dict[str, object] = {"data": data, "numpy": np}
    exec(line, found)
    assert (found["d"], found["model"]) == (300, VERSION)
    assert np.array_equal(found["user"], read(data).vector) and isinstance(read(data), Embedding)  # type: ignore[arg-type]
