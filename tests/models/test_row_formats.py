"""Rows of older versions are read as rows of ours, whatever stands beside them; what is newer, cut or of nobody is named and refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.row_formats import Older, RowFormat, UnknownRow, read, version_of

ONE = np.dtype([("version", "<u2"), ("n", "u1")])
TWO = np.dtype([("version", "<u2"), ("n", "<u4")])
THREE = np.dtype([("version", "<u2"), ("n", "<u4"), ("lifted", "u1")])


def to_two(rows: np.ndarray) -> np.ndarray:
    return np.array([(2, 10 * n) for _, n in rows.tolist()], TWO)


def to_three(rows: np.ndarray) -> np.ndarray:
    return np.array([(3, n, 1) for _, n in rows.tolist()], THREE)


ROWS = RowFormat(3, THREE, {1: Older(ONE, to_two), 2: Older(TWO, to_three)})


def row(version: int, n: int) -> bytes:
    return np.array({1: (1, n), 2: (2, n), 3: (3, n, 0)}[version], {1: ONE, 2: TWO, 3: THREE}[version]).tobytes()


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 255)), max_size=12))
def test_each_becomes_a_row_of_ours_in_its_place(rows: list[tuple[int, int]]) -> None:
    found = read([row(version, n) for version, n in rows], ROWS)
    assert found.dtype == THREE
    assert found.tolist() == [(3, 10 * n if version == 1 else n, int(version < 3)) for version, n in rows]


@pytest.mark.parametrize("data", [row(3, 1)[:-1], row(2, 1) + b"x", row(1, 1)[:2], b"", b"\x04\x00" + bytes(5), b"\x00\x00" + bytes(5), b"hello"])
def test_others_are_refused(data: bytes) -> None:
    with pytest.raises(UnknownRow) as refused:
        read([row(3, 1), row(1, 1), data], ROWS)
    assert (refused.value.version, refused.value.n_bytes) == (version_of(data), len(data))


def test_what_can_be_read() -> None:
    assert ROWS.readable == {1, 2, 3} and RowFormat(7, ONE).readable == {7}
    assert len(read([], ROWS)) == 0
