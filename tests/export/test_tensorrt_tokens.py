"""float16 graphs of models that read numbers of tokens: these are named by their floats, and stay as they are."""

from __future__ import annotations

import numpy as np
import onnx

from edgetk.export import parity
from edgetk.export.tensorrt_half import half


def test_numbers_of_tokens_are_not_rounded_to_float16() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    main (float[1, 3] tokens) => (float[1, 3] y) {
        whole = Cast <to: int = 7> (tokens)
        numbers = Cast <to: int = 1> (whole)
        scale = Constant <value = float {0.001}> ()
        y = Mul (numbers, scale)
    }
    """
    model = half(onnx.parser.parse_model(text), "net")
    first = model.graph.node[0]
    assert (first.op_type, list(first.input)) == ("Cast", ["tokens"])
    got = parity.run_once(model.SerializeToString(), (np.array([[1.0, 2049.0, 30521.0]], np.float32),))[0]
    np.testing.assert_allclose(got, [[0.001, 2.049, 30.521]], rtol=2e-3)
