"""The k vectors with the largest dot product, in two stages: all of them in 8 bits, then the exact scores of those that survive.

For vectors that stay as they are. The first stage reads everything, so its recall hangs on no structure of the vectors, as that
of inverted lists does; with whole numbers a core does so at a tenth of the price. What it may miss lies within
the rounding of the k-th score, and there are `SURVIVORS` times k behind it.

The dot products are ONNX Runtime's, whose kernels use what a processor has for 8-bit numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba as nb
import numpy as np

from models.onnx_runtime import session
from models.top import bound_of, exact_search, sort_best

#: Up to so many vectors one stage is as fast.
EXACT_UP_TO = 4_096
#: So many times k go into the second stage, and so many more.
SURVIVORS, AND_MORE = 1.5, 64
GROUP = 64
#: Vectors of a tile and queries of a run: their scores stay in the third cache.
TILE = 65_536
N_QUERIES = 16
#: Items take 7 bits of the 8: two products of 8 and 8 would not fit where processors add them in 16.
MOST_ITEM, MOST_QUERY = 63, 127
INT32, INT8, UINT8 = 6, 3, 2  # ONNX's numbers of types
#: Of a protocol buffer: number and value of each field; bytes, and messages within, in pieces.
Fields = Sequence[tuple[int, "int | str | list[bytes]"]]


@nb.njit(cache=True, nogil=True)
def _survive(scores: np.ndarray, first: int, k: int, slots: np.ndarray, values: np.ndarray, n: int, maxima: np.ndarray) -> int:
    """Add to `slots` and `values` (n of them so far) what may be among the best k of a tile; returns the new n.

    As in `models.top`: k of the maxima of groups reach a bound, so k scores do. Group j is j, j + m, j + 2m, ..., so that the
    maxima of many groups are taken at once.
    """
    n_scores = scores.shape[0]
    width = GROUP
    while width > 1 and width * 4 * k > n_scores:
        width //= 2
    m = n_scores // width
    for j in range(m):
        maxima[j] = scores[j]
    for start in range(m, n_scores, m):
        for j in range(min(m, n_scores - start)):
            maxima[j] = max(maxima[j], np.float32(scores[start + j]))
    bound = bound_of(maxima, m, k) if m >= k else np.float32(-np.inf)
    for j in range(m):
        if maxima[j] < bound:
            continue
        for at in range(j, n_scores, m):
            if scores[at] >= bound:
                slots[n] = first + at
                values[n] = scores[at]
                n += 1
    return n


@nb.njit(cache=True, nogil=True)
def _round(vectors: np.ndarray, first: int, scales: np.ndarray, tile: np.ndarray) -> None:
    """Fill tile (d, n) int8; numpy would leave the heap in pieces that cost as much as all tiles."""
    for f in range(tile.shape[0]):
        for k in range(tile.shape[1]):
            tile[f, k] = np.int8(np.rint(vectors[first + k, f] / scales[f]))


@nb.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _score(query: np.ndarray, vectors: np.ndarray, slots: np.ndarray, n: int, scores: np.ndarray) -> None:
    for k in range(n):
        total = np.float32(0)
        for f in range(query.shape[0]):
            total += query[f] * vectors[slots[k], f]
        scores[k] = total


@nb.njit(cache=True, nogil=True)
def _best(
    queries: np.ndarray,
    vectors: np.ndarray,
    k: int,
    n_survivors: int,
    of_tile: np.ndarray,
    first: int,
    last: bool,
    slots: np.ndarray,
    values: np.ndarray,
    n_found: np.ndarray,
    best_slots: np.ndarray,
    best_scores: np.ndarray,
) -> None:
    """Take in the scores (B, n) int32 of one tile; after the last one fill in the best k."""
    room = slots.shape[1] + of_tile.shape[1]
    more_slots, more_values, maxima = np.empty(room, np.int32), np.empty(room, np.float32), np.empty(room, np.float32)
    for b in range(queries.shape[0]):
        n = n_found[b]
        more_slots[:n], more_values[:n] = slots[b, :n], values[b, :n]
        n = _survive(of_tile[b], first, n_survivors, more_slots, more_values, n, maxima)
        bound = bound_of(more_values, n, n_survivors) if n > n_survivors else np.float32(-np.inf)
        kept = 0
        for j in range(n):
            if more_values[j] >= bound and kept < slots.shape[1]:  # full of equal ones only
                slots[b, kept], values[b, kept] = more_slots[j], more_values[j]
                kept += 1
        n_found[b] = kept
        if last:
            _score(queries[b], vectors, slots[b], kept, values[b])
            bound = bound_of(values[b], kept, k)
            n = 0
            for j in range(kept):
                if values[b, j] >= bound:
                    slots[b, n], values[b, n] = slots[b, j], values[b, j]
                    n += 1
            sort_best(values[b], slots[b], n, k, best_slots[b], best_scores[b])


class TwoStage:
    """Searches vectors (n, d) float32, which must not change.

    >>> slots, scores = TwoStage(np.eye(3, dtype=np.float32)).search(np.array([[1, 3, 2]], np.float32), 2)
    >>> slots.tolist(), scores.tolist()
    ([[1, 2]], [[3.0, 2.0]])
    """

    def __init__(self, vectors: np.ndarray, *, exact_up_to: int = EXACT_UP_TO) -> None:
        self._vectors = vectors
        self._tiles: list[tuple[int, Any]] = []
        if len(vectors) > exact_up_to:
            # one scale a dimension, which goes into the query: so scores of one query can be compared as they are
            self._scales = np.maximum(np.abs(vectors).max(axis=0), np.float32(1e-30)) / np.float32(MOST_ITEM)
            for first in range(0, len(vectors), TILE):
                tile = np.empty((vectors.shape[1], len(vectors[first : first + TILE])), np.int8)
                _round(vectors, first, self._scales, tile)
                self._tiles.append((first, session(product_with(tile))))

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Best k for each query (B, d) float32: slots (B, k) int32 and dot products (B, k) float32, k cut to n."""
        n = len(self._vectors)
        n_survivors = int(SURVIVORS * k) + AND_MORE
        if not self._tiles or n_survivors * 4 > n:
            return exact_search(queries, self._vectors, k)
        best = np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.float32)
        scaled = queries * self._scales
        most = np.maximum(np.abs(scaled).max(axis=1, keepdims=True), np.float32(1e-30))
        rounded = (np.rint(scaled * (MOST_QUERY / most)) + 128).astype(np.uint8)
        for start in range(0, len(queries), N_QUERIES):
            some = slice(start, start + N_QUERIES)
            room = (len(queries[some]), 4 * n_survivors)
            slots, values, n_found = np.empty(room, np.int32), np.empty(room, np.float32), np.zeros(room[0], np.int64)
            for first, product in self._tiles:
                of_tile = product.run(None, {"queries": rounded[some]})[0]
                last = (first, product) == self._tiles[-1]
                found = slots, values, n_found, best[0][some], best[1][some]
                _best(queries[some], self._vectors, k, n_survivors, of_tile, first, last, *found)
        return best


def product_with(tile: np.ndarray) -> bytes:
    """The ONNX graph scores (B, n) int32 = (queries (B, d) uint8 - 128) . tile (d, n) int8, which it holds.

    Written field by field, as protocol buffers are: the package that writes them is larger than all else that a worker needs.
    """
    d, n = tile.shape
    graph: Fields = [
        (1, _message([(1, "queries"), (1, "tile"), (1, "zero"), (2, "scores"), (4, "MatMulInteger")])),
        (2, "product"),
        (5, _message([(1, d), (1, n), (2, INT8), (8, "tile"), (9, [tile.tobytes()])])),
        (5, _message([(2, UINT8), (8, "zero"), (9, [bytes([128])])])),
        (11, _array("queries", UINT8, d)),
        (12, _array("scores", INT32, n)),
    ]
    return b"".join(_message([(1, 8), (7, _message(graph)), (8, _message([(1, ""), (2, 17)]))]))


def _array(name: str, kind: int, width: int) -> list[bytes]:
    shape = _message([(1, _message([(2, "B")])), (1, _message([(1, width)]))])
    return _message([(1, name), (2, _message([(1, _message([(1, kind), (2, shape)]))]))])


def _message(fields: Fields) -> list[bytes]:
    """A message in pieces, which are joined once: a tile is copied no oftener than it must be."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts += [_varint(number << 3), _varint(value)]
        else:
            data = [value.encode()] if isinstance(value, str) else value
            parts += [_varint(number << 3 | 2), _varint(sum(map(len, data))), *data]
    return parts


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
