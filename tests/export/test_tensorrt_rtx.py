"""Real builds on this processor: what goes to TensorRT boards, through TensorRT-RTX's own parser and ahead-of-time builder."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator
from dataclasses import replace

import onnx
import pytest

from edgetk.core import registry
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Lowered
from edgetk.export import tensorrt_build, tensorrt_graph
from edgetk.export.lower import lower
from edgetk.export.tensorrt_half import half
from edgetk.quant.quantize import Quantize
from edgetk.targets import board
from edgetk.toolkit import source

#: Zoo models with weights that are meant for a Jetson; the attention of the EcoFormer comes as a function.
MODELS = ("lmuformer-xs", "lmuformer-spiking-s", "ecoformer-kws", "ds-cnn")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="needs TensorRT-RTX: make test-tensorrt installs it"
)


def engine(content: bytes, low: Lowered) -> tensorrt_build.Engine:
    library = tensorrt_build.find()
    assert isinstance(library, tensorrt_build.Library), library
    built = tensorrt_build.build(content, low.precision, library, low.exact)
    assert isinstance(built, tensorrt_build.Engine), built
    return built


def versions(name: str) -> Iterator[Bundle]:
    """The model as it ships, and quantized on a few inputs: the weights do not matter to a builder, the operators do."""
    target = board.load("jetson")
    bundle = source.open_model(name)
    bundle = replace(bundle, data=registry.load("task", bundle.task).open(None, bundle.labels), target=target)
    yield bundle
    quantize = Quantize(calibration=4, stream_inputs=1, examples=8, max_change=1.0, max_drop=1.0)
    made = quantize(bundle.with_body(copy.deepcopy(bundle.body)))
    assert made.modified
    yield bundle.with_body(made.body)


@pytest.mark.parametrize("name", MODELS)
def test_every_form_and_precision_of_the_zoo_builds(name: str) -> None:
    target = board.load("jetson")
    seen = []
    for bundle in versions(name):
        for low in lower(bundle, target):
            fitted = tensorrt_graph.fit(low, target.stack, name)
            own = [function.name for function in fitted.graph.functions]
            assert own == (["BinaryLinearAttention"] if name == "ecoformer-kws" else [])
            built = engine(fitted.graph.SerializeToString(), fitted)
            assert len(built.content) > 10_000
            seen.append((low.form, low.precision))
            if low.precision == "float32" and not low.exact:
                narrow = replace(fitted, graph=half(fitted.graph, name), precision="float16")
                assert len(engine(narrow.graph.SerializeToString(), narrow).content) > 10_000
    forms = ("clip", "stream") if name.startswith("lmuformer") else ("clip",)
    assert seen == [(form, precision) for precision in ("float32", "int8") for form in forms]


@pytest.mark.parametrize("kind", ["DFT", "Det"])
def test_what_the_lint_refuses_the_parser_refuses_too(kind: str) -> None:
    texts = {
        "DFT": "net (float[1, 8, 1] x) => (float[1, 8, 2] y) { y = DFT (x) }",
        "Det": "net (float[4, 4] x) => (float y) { y = Det (x) }",
    }
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{texts[kind]}')
    library = tensorrt_build.find()
    assert isinstance(library, tensorrt_build.Library), library
    reason = tensorrt_build.build(model.SerializeToString(), "float32", library)
    assert isinstance(reason, str)
    assert "refused the graph" in reason
    assert kind in reason
