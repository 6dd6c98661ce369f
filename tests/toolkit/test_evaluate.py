"""One score for every form of a model: clip and stream, in memory and as graphs, with look-ahead or without."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
import quick
import torch

from edgetk.core import registry
from edgetk.core.errors import InputError
from edgetk.export.lower import lower
from edgetk.targets import board
from edgetk.testing import TinyData, tiny_bundle
from edgetk.toolkit.evaluate import evaluate, graph_predictor, predictor
from edgetk.toolkit.tiny import FRAMES

FEATURES = TinyData().split("test").features[:7]


def _static(graph: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The graph with a fixed batch."""
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    return graph


def test_every_form_of_the_tiny_model_scores_the_same() -> None:
    bundle = tiny_bundle()
    assert bundle.clip is not None
    expected = predictor(bundle)(FEATURES)
    stream_only = replace(bundle, clip=None)
    clip, stream = quick.clip_graph(bundle), quick.stream_graph(bundle)
    single = replace(bundle.clip, inputs=(replace(bundle.clip.inputs[0], shape=(1, FRAMES, 4)),))
    for predict in (
        predictor(stream_only),
        graph_predictor(clip.SerializeToString(), bundle.clip),
        graph_predictor(stream.SerializeToString(), bundle.signature),
        graph_predictor(_static(clip, 1).SerializeToString(), single),
    ):
        torch.testing.assert_close(predict(FEATURES), expected, rtol=1e-4, atol=1e-5)


def test_a_stream_that_looks_ahead_scores_what_the_clip_scores() -> None:
    torch.manual_seed(0)
    bundle = registry.load("model", "lmuformer")(
        "xs", widths=(8, 8, 8, 8), order=4, hidden=8, ffn=8, features=4, frames=12, classes=3
    )
    features = torch.randn(3, 12, 4)
    expected = predictor(bundle)(features)
    graph = next(low for low in lower(bundle, board.load("host")) if low.form == "stream")
    for predict in (predictor(replace(bundle, clip=None)), graph_predictor(graph.graph.SerializeToString(), graph.signature)):
        torch.testing.assert_close(predict(features), expected, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_scored() -> None:
    with pytest.raises(InputError, match=r"evaluate: the graph must load in onnxruntime, got: .*; export it again"):
        graph_predictor(b"nonsense", tiny_bundle().signature)
    bundle = tiny_bundle()
    assert bundle.clip is not None
    pairs = replace(bundle.clip, inputs=(replace(bundle.clip.inputs[0], shape=(2, FRAMES, 4)),))
    content = _static(quick.clip_graph(bundle), 2).SerializeToString()
    with pytest.raises(InputError, match=r"examples must fill batches of 2, got 7; export with a free batch size"):
        graph_predictor(content, pairs)(FEATURES)


@pytest.mark.usefixtures("plugins")
def test_an_empty_split_is_refused() -> None:
    class Empty(TinyData):
        def split(self, name: str):  # type: ignore[no-untyped-def]
            full = super().split(name)
            return replace(full, features=full.features[:0], labels=full.labels[:0])

    with pytest.raises(InputError, match=r"evaluate: the test split of made up must hold examples, got none"):
        evaluate(predictor(tiny_bundle()), "tiny", Empty(), "test")
