"""One run with nothing replaced: torch's exporter, the real meter, compressed passes, files that onnxruntime scores alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetk.core.figures import Measured
from edgetk.toolkit import runner
from edgetk.toolkit.evaluate import evaluate, predictor
from edgetk.toolkit.recipe import PassStep, Recipe
from edgetk.toolkit.source import open_model
from edgetk.toolkit.tiny import TinyData


@pytest.mark.usefixtures("plugins")
def test_from_recipe_to_files_that_score_the_same(tmp_path: Path) -> None:
    passes = (PassStep("rescale"), PassStep("shrink", {"hidden": 6}))
    recipe = Recipe("flow", model="edgetk.testing:tiny_bundle", passes=passes)
    result = runner.run(recipe, tmp_path)
    assert [row.reason for row in result.passes if not row.kept and "slower" not in row.reason] == []
    assert isinstance(result.original[0].latency, Measured)
    for artifact in result.artifacts:
        assert artifact.parity is not None
        assert artifact.parity.passed
        bundle = open_model(str(Path(result.folder) / artifact.path))
        assert bundle.labels == result.labels
        score = evaluate(predictor(bundle), bundle.task, TinyData(), "test")
        assert score == result.after
