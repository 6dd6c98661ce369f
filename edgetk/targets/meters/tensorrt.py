"""Times engines, or graphs that it builds into engines, on this machine's NVIDIA GPU with TensorRT, through the agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgetk.core.figures import Measured, Missing
from edgetk.core.signature import Signature
from edgetk.targets.meters._bench import Item, Settings, run
from edgetk.targets.meters._figures import figures
from edgetk.targets.meters._transport import Local
from edgetk.targets.meters.agent import trt


@dataclass(frozen=True)
class TensorRt:
    """Latency with and without copies and as a CUDA graph, memory, energy of the GPU."""

    name: str = "tensorrt"
    settings: Settings = field(default_factory=Settings)

    def available(self) -> str | None:
        """None if tensorrt can be imported and a GPU answers, else why not."""
        return trt.available()

    def measure(self, path: Path, signature: Signature, budget_s: float = 2.0) -> Sequence[Measured | Missing]:
        """Run an engine, or an .onnx file as an engine built here, for about `budget_s` each way."""
        item = Item(path.name, path.read_bytes(), signature, self.name)
        return figures(run(Local(), [item], replace(self.settings, budget_s=budget_s))[0])


METER = TensorRt()
