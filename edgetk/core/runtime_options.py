"""How edgetk opens files in ONNX Runtime: on one thread, with integer products that do not saturate on any processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: ONNX Runtime's kernels for uint8 by int8 products add pairs in 16 bits on x86 processors without VNNI, which saturates where
#: both factors are large. With this entry they multiply uint8 by uint8 there, exactly (onnxruntime pull request 12088)
EXACT_INTEGERS = "session.x64quantprecision"


def session_options(threads: int = 1, optimise: bool = True) -> Any:
    """`onnxruntime.SessionOptions` for sessions on `threads` threads; without `optimise` graphs run as they stand."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # errors come as exceptions
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    options.add_session_config_entry(EXACT_INTEGERS, "1")
    return options


def open_session(content: bytes | str | Path, options: Any) -> Any:
    """A session of ONNX Runtime on the processor, with exact integer products where it can make them.

    Its conversion refuses int8 constants that several nodes read (onnxruntime 1.32: "Attempt to replace the existing tensor").
    edgetk's exports have none but tied weights; such a file is opened without the conversion. Raises what onnxruntime raises.
    """
    import onnxruntime as ort

    model = str(content) if isinstance(content, Path) else content
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen exception types without a common base
        if "replace the existing tensor" not in str(error):
            raise
    options.add_session_config_entry(EXACT_INTEGERS, "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
