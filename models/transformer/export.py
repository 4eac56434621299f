"""From weights to what a worker serves: an ONNX graph and item vectors.

The graph computes a user from his history. Item vectors are its input, so an item that no training has seen can have one:

    vectors (B, L, d) float32, types (B, L) int64, gaps (B, L) float32, lengths (B,) int64  ->  users (B, d) float32

Oldest first, padded at the left, L at most max_len; gaps are log2(1 + seconds) from an item's event to the newest of the history.
The score of an item is the product of user and item vector.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.transformer.data import DataError
from models.transformer.evaluation import build
from models.transformer.model import Model, visibility
from models.transformer.weights import Weights

#: The newest that the older exporter writes; ONNX Runtime reads it from 1.14 on.
OPSET = 17
INPUTS, OUTPUT = ("vectors", "types", "gaps", "lengths"), "users"


class Graph(nn.Module):
    """The model as a worker asks it: the newest place alone."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, vectors: Tensor, types: Tensor, gaps: Tensor, lengths: Tensor) -> Tensor:
        length = vectors.shape[1]
        place = torch.arange(length, device=vectors.device)
        # padding is window -1: nothing sees it but itself
        windows = torch.where(place[None, :] >= length - lengths[:, None], 0, -1)  # (B, L)
        users: Tensor = self.model(vectors, types, torch.pow(2.0, gaps) - 1, visibility(windows), n_out=1)
        return users[:, 0]  # (B, d)


def to_onnx(weights: Weights) -> bytes:
    """The graph, with batch and length dynamic. Needs the package onnx.

    By torch's older exporter: the newer one needs onnxscript too, and 20 s where this one needs half of one.
    """
    import onnx

    config = weights.model
    model = build(weights).cpu()
    example = (torch.zeros(2, 3, config.d), torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3), torch.tensor([3, 2]))
    axes = {name: {0: "batch", 1: "length"} for name in INPUTS[:3]} | {"lengths": {0: "batch"}, OUTPUT: {0: "batch"}}
    with warnings.catch_warnings(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "graph.onnx"
        warnings.simplefilter("ignore")  # it says of itself that it is the older one
        torch.onnx.export(Graph(model).eval(), example, file, input_names=list(INPUTS), output_names=[OUTPUT],
                          dynamic_axes=axes, opset_version=OPSET, dynamo=False)
        graph = onnx.load(file)
    # the exporter leaves out what this model does not look at; whoever asks need not know what that is
    kinds = {"types": onnx.TensorProto.INT64, "gaps": onnx.TensorProto.FLOAT}
    there = {value.name for value in graph.graph.input}
    for name in set(kinds) - there:
        graph.graph.input.append(onnx.helper.make_tensor_value_info(name, kinds[name], ["batch", "length"]))
    data: bytes = graph.SerializeToString()
    return data


def item_vectors(weights: Weights) -> np.ndarray:
    """(n_items, d) float32, as the graph takes them and as they score."""
    with torch.no_grad():
        return build(weights).vectors().float().cpu().numpy()


def text_vectors(weights: Weights, texts: np.ndarray) -> np.ndarray:
    """texts (k, n_text) of items that no training has seen -> (k, d) float32, as the graph takes them and as they score."""
    model = build(weights).cpu()
    if model.text is None or texts.shape[1] != weights.model.n_text:
        raise DataError(f"text vectors are {texts.shape[1]} wide; this model was trained with {weights.model.n_text or 'none'}")
    with torch.no_grad():
        found: np.ndarray = model.as_vectors(model.text(torch.from_numpy(texts.astype(np.float32)))).numpy()
    return found


def quantise(graph: bytes) -> bytes:
    """The graph with its matrices in int8 (dynamic: activations are measured as they come). Needs the package onnxruntime."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        whole, small = Path(folder) / "whole.onnx", Path(folder) / "small.onnx"
        whole.write_bytes(graph)
        quantize_dynamic(whole, small, weight_type=QuantType.QInt8, per_channel=True)
        return small.read_bytes()
