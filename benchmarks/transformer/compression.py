"""What int8 costs: the newest weights of an ADER run, asked through ONNX Runtime as a worker asks, with graph and vectors in float32 and in int8.

Beginnings of sessions of the period after those weights; one core.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime

from benchmarks.transformer.ader import test_sessions
from benchmarks.transformer.recipes import Periods
from models.transformer.data import Plan, Sequences, batch
from models.release import quantised
from models.transformer.export import item_vectors, quantise, to_onnx
from models.transformer.weights import Weights

#: Users asked in one call.
N_TOGETHER = 256


class Line(NamedTuple):
    name: str
    n_bytes: int
    recall: float
    mrr: float
    us_a_user: float


def run(recipe: Periods, data: Path, out: Path, *, fraction: float, seed: int, n: int = 6_000) -> list[Line]:
    """One line for each of: float32, int8 vectors, int8 graph, both. n: beginnings asked about."""
    newest = max(out.glob("weights_*.npz"), key=lambda path: int(path.stem.partition("_")[2]), default=None)
    if newest is None:
        raise FileNotFoundError(2, "no weights of a run", str(out / "weights_*.npz"))
    weights = Weights.load(newest)
    test = test_sessions(recipe, data, int(newest.stem.partition("_")[2]) + 1, weights.n_items, fraction=fraction, seed=seed)
    last = np.zeros(len(test.items), bool)
    last[test.ends - 1] = True
    events = np.sort(np.random.default_rng(seed).permutation(np.flatnonzero(~last))[:n])
    vectors, graph = item_vectors(weights), to_onnx(weights)
    small, scales = quantised(vectors)
    rounded = small * scales[:, None]
    half = quantise(graph)
    lines: list[Line] = []
    for name, table, network, n_bytes in (
            ("float32", vectors, graph, vectors.nbytes + len(graph)), ("int8 vectors", rounded, graph, small.nbytes + scales.nbytes + len(graph)),
            ("int8 graph", vectors, half, vectors.nbytes + len(half)), ("int8 both", rounded, half, small.nbytes + scales.nbytes + len(half))):
        ranks, seconds = _ranks(test, events, table, network, weights.model.max_len)
        hit = ranks <= 20
        lines.append(Line(name, n_bytes, float(hit.mean()), float(np.where(hit, 1 / ranks, 0).mean()), 1e6 * seconds / len(events)))
    return lines


def _ranks(test: Sequences, events: np.ndarray, vectors: np.ndarray, graph: bytes, max_len: int) -> tuple[np.ndarray, float]:
    """Ranks of what follows each event, and the seconds that the graph took."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    start = test.starts[np.searchsorted(test.ends, events, side="right")]
    sizes = np.minimum(events + 1 - start, max_len)
    found, seconds = [], 0.0
    for at in range(0, len(events), N_TOGETHER):
        here, size = events[at:at + N_TOGETHER], sizes[at:at + N_TOGETHER]
        length = int(size.max())
        # packed at the right end of its row, as the graph takes it
        where = Plan(here + 1 - size, size, length - size, np.arange(len(here) + 1))
        rows = batch(test, where, np.arange(len(here)), length)
        inputs = {"vectors": np.where((rows.windows >= 0)[:, :, None], vectors[rows.items], np.float32(0)).astype(np.float32),
                  "types": rows.types.astype(np.int64), "gaps": np.log2(1 + rows.ages).astype(np.float32), "lengths": size.astype(np.int64)}
        before = time.process_time()
        users = session.run(None, inputs)[0]
        seconds += time.process_time() - before
        scores = users @ vectors.T
        found.append((scores >= scores[np.arange(len(here)), test.items[here + 1]][:, None]).sum(1))
    return np.concatenate(found), seconds
