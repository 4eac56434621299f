"""How we run ONNX graphs: on one core, without threads or pools of its own."""

from __future__ import annotations

from typing import Any

from models.manifest import BadRelease


def session(graph: bytes) -> Any:
    """An `onnxruntime.InferenceSession`. Raises BadRelease where the package is missing, and what its C++ throws for a bad graph."""
    try:  # 40 MB and a tenth of a second, for those who serve a release only
        import onnxruntime
    except ImportError as error:
        raise BadRelease(f"what runs a release is not installed ({error}); pip install onnxruntime") from None

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # plans and pools of memory for each shape it has met: shapes differ from call to call, and it is as fast without, in half the memory
    options.enable_mem_pattern = options.enable_cpu_mem_arena = False
    options.log_severity_level = 4  # what it has to say, it raises
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
