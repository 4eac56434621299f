"""Arrays of records put end to end: numpy compares the layouts of all of them field by field, which costs a hundred times the copying."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def stacked(parts: Iterable[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """One array (sum of n,) of the records in `parts`, each (n,) of this `dtype`; a copy.

    >>> pair = np.dtype([("a", "<i4"), ("b", "<i4")])
    >>> stacked([np.array([(1, 2)], pair), np.array([(3, 4)], pair)], pair).tolist()
    [(1, 2), (3, 4)]
    """
    return np.frombuffer(bytearray().join(part.tobytes() for part in parts), dtype)
