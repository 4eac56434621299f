"""A network small enough to be computed by hand, as the graph of a release: what a trainer writes, without a trainer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from models.hashing import stable_hash
from models.release import Manifest, Release, Shape

N_TYPES = 9
#: What an event of each type counts here; padding counts, too, but its vectors are zeros.
TYPE_WEIGHTS = np.linspace(0.5, 1.5, N_TYPES + 1).astype(np.float32)


def graph(
    d: int,
    *,
    inputs: Sequence[str] = ("vectors", "types", "gaps", "lengths"),
    output: str = "users",
    width: int | None = None,
    n_types: int = N_TYPES,
) -> bytes:
    """users = sum of vectors x TYPE_WEIGHTS[type] x 2 ** -gap / length. `width`: of what comes out, if not d."""
    nodes = [
        helper.make_node("Gather", ["by_type", inputs[1]], ["kind"]),
        helper.make_node("Neg", [inputs[2]], ["back"]),
        helper.make_node("Pow", ["two", "back"], ["recency"]),
        helper.make_node("Mul", ["kind", "recency"], ["weight"]),
        helper.make_node("Unsqueeze", ["weight", "last"], ["weights"]),
        helper.make_node("Mul", [inputs[0], "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "middle"], ["sum"], keepdims=0),
        helper.make_node("Cast", [inputs[3]], ["n"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["n", "one"], ["count"]),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("MatMul", ["mean", "w"], [output]),
    ]
    constants = {
        "by_type": TYPE_WEIGHTS[: n_types + 1],
        "two": np.array(2, np.float32),
        "last": np.array([2]),
        "middle": np.array([1]),
        "one": np.array([1]),
        "w": np.eye(d, width or d, dtype=np.float32),
    }
    shapes = (["B", "L", d], ["B", "L"], ["B", "L"], ["B"])
    kinds = (TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT, TensorProto.INT64)
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "mean",
            [helper.make_tensor_value_info(*about) for about in zip(inputs, kinds, shapes, strict=True)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["B", width or d])],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    checker.check_model(model)
    return model.SerializeToString()


def by_hand(vectors: np.ndarray, types: Sequence[int], gaps: Sequence[float]) -> np.ndarray:
    """The same for one user, vectors (L, d), oldest first."""
    weights = TYPE_WEIGHTS[list(types)] * np.exp2(-np.array(gaps))
    return np.asarray((vectors * weights[:, None]).sum(axis=0) / len(vectors))


def release_of(items: Sequence[str], d: int = 8, *, seed: int = 0, max_len: int = 50, **more: object) -> Release:
    """A release that knows these items, with random vectors."""
    vectors = np.random.default_rng(seed).standard_normal((len(items), d), np.float32)
    keys = np.array([stable_hash(item) for item in items], np.uint64)
    return Release(Manifest(shape=Shape(len(items), d, max_len, N_TYPES), **more), vectors, keys, graph(d))  # type: ignore[arg-type]
