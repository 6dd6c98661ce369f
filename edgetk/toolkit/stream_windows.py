"""A model of whole clips as one function a frame: its newest second of sound is scored anew every so many frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgetk.core.bundle import Bundle
from edgetk.core.errors import InputError, UsageError
from edgetk.tasks.speech import front_end as fe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgetk.core.contracts import Predict

    Row = NDArray[np.float32]

#: frames between two windows, 100 ms
EVERY: Final = 10


class WindowSteps:
    """Logits (K,) of the clip that ends with the newest window's last frame, the same until the next window.

    A window is the newest `fe.CLIP_FRAMES` frames, fewer at the start of a stream, filled up as the task fills up clips: after
    exactly a clip's frames its logits are the clip's. It needs no look-ahead, and no state but its frames.
    """

    def __init__(self, bundle: Bundle, runtime: str) -> None:
        shape = bundle.signature.inputs[0].shape
        if len(bundle.signature.inputs) != 1 or tuple(shape[1:]) != (fe.FRAMES, fe.N_MELS):
            raise InputError(
                f"stream: model {bundle.name} must stream, or take clips of {fe.FRAMES} x {fe.N_MELS} features, "
                f"got {' x '.join(map(str, shape[1:]))}; choose a model of the task speech-commands"
            )
        self._predict, runs = _predict(bundle, runtime)
        self.runtime = f"{runs}, windows of {fe.CLIP_FRAMES} frames every {EVERY}"
        self._row = np.zeros(len(bundle.labels), dtype=np.float32)
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        self._frames = np.full((fe.FRAMES, fe.N_MELS), fe.PAD_NORMALISED, dtype=np.float32)
        self._heard = 0

    def state(self) -> Mapping[str, NDArray[Any]]:
        """The frames of the window."""
        return {"window": self._frames}

    def __call__(self, frame: Row) -> Row:
        """One frame (F,) -> logits (K,)."""
        import torch

        if self._heard < fe.CLIP_FRAMES:
            self._frames[self._heard] = frame
        else:
            self._frames[: fe.CLIP_FRAMES - 1] = self._frames[1 : fe.CLIP_FRAMES].copy()
            self._frames[fe.CLIP_FRAMES - 1] = frame
        self._heard += 1
        if (self._heard - fe.CLIP_FRAMES) % EVERY == 0 or self._heard == 1:
            with torch.inference_mode():
                self._row = self._predict(torch.from_numpy(self._frames.copy())[None])[0].numpy()
        return self._row


def _predict(bundle: Bundle, runtime: str) -> tuple[Predict, str]:
    """Features (1, T, F) -> scores (1, K) by `runtime`, and what that is in words."""
    from edgetk.toolkit.evaluate import graph_predictor, predictor

    if runtime == "c":
        raise UsageError(
            f"stream: --runtime c needs a model with a stream form, got {bundle.name} for whole inputs alone; "
            "leave --runtime out"
        )
    if runtime == "torch":
        if not bundle.is_torch:
            raise UsageError(
                f"stream: --runtime torch needs a model in memory, got the graph {bundle.name}; leave --runtime out"
            )
        import torch

        return predictor(bundle), f"torch {torch.__version__.partition('+')[0]}"
    import onnxruntime

    from edgetk.export.lower import lower
    from edgetk.targets import board

    (low,) = lower(bundle, board.load("host"), ["clip"])
    return graph_predictor(
        low.graph.SerializeToString(), low.signature
    ), f"onnxruntime {onnxruntime.__version__}, {low.precision}"


__all__ = ["EVERY", "WindowSteps"]
