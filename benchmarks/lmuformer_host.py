"""LMUFormer on one core of this machine: edgetk's files against stock export and stock quantization, taken in turn.

    python benchmarks/lmuformer_host.py --data FOLDER [--runs runs] [-o benchmarks/results/lmuformer_host.json]

Stock baselines: the published architecture with nn.Conv1d layers, exported by torch.onnx, quantized by
onnxruntime.quantization (static Q/DQ, MinMax, per channel, 96 calibration clips; dynamic). The step baselines are the same
network one frame at a time. Every latency is the median of calls taken in turn with all other files, one thread. Accuracy is
that of each file in onnxruntime on the test clips of the official lists.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
import torch.nn.functional as F
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from edgetk.core import registry
from edgetk.core.figures import Score
from edgetk.core.runtime_options import session_options
from edgetk.export import graph as graphs
from edgetk.export.parity import initial_state
from edgetk.models.layers.norm import BatchNorm
from edgetk.models.lmuformer import LMUFormer
from edgetk.targets import machine
from edgetk.toolkit import runner, source
from edgetk.toolkit.recipe import read


class StockClip(nn.Module):
    """The network as published: (B, C, T) convolutions with BatchNorm1d, memory as a causal convolution."""

    def __init__(self, net: LMUFormer) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv(c.taps, 3) for c in net.embed.convs)
        self.norms = nn.ModuleList(_norm(n) for n in net.embed.norms)
        self.position = _conv(net.embed.position.taps, 3)
        self.encoder, self.hidden = net.mixer.encoder, net.mixer.hidden
        self.register_buffer("kernel", net.mixer.memory.H.flip(1)[:, None])
        self.proj, self.norm = _conv(net.mixer.proj, 1), _norm(net.mixer.norm)
        self.expand, self.norm1 = _conv(net.channels.expand, 1), _norm(net.channels.norm1)
        self.reduce, self.norm2 = _conv(net.channels.reduce, 1), _norm(net.channels.norm2)
        self.head = net.head

    def forward(self, features: Tensor) -> Tensor:
        x = features.transpose(1, 2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(F.relu(conv(x)))
        x = x + self.position(x)
        frames = x.transpose(1, 2)
        u = F.relu(self.encoder(frames)).transpose(1, 2)
        m = F.conv1d(F.pad(u, (127, 0)), self.kernel).transpose(1, 2)
        h = F.relu(self.hidden(torch.cat([m, frames], dim=-1))).transpose(1, 2)
        x = x + self.norm(self.proj(h))
        x = x + F.relu(self.norm2(self.reduce(F.gelu(self.norm1(self.expand(x))))))
        return self.head(x.transpose(1, 2)).mean(dim=1)


class StockStep(StockClip):
    """One frame with its states as a plain port would write it: convolutions over the last three frames, one matrix for m."""

    def __init__(self, net: LMUFormer) -> None:
        super().__init__(net)
        self.register_buffer("A", net.mixer.memory.A)
        self.register_buffer("B", net.mixer.memory.B[:, 0])
        for conv in (*self.convs, self.position):
            conv.padding = (0,)

    def forward(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        x, carried = features.transpose(1, 2), []
        for conv, norm, past in zip(self.convs, self.norms, state[:4], strict=True):
            wide = torch.cat([past, x], dim=2)
            carried.append(wide[:, :, 1:])
            x = norm(F.relu(conv(wide)))
        wide = torch.cat([state[4], x], dim=2)
        carried.append(wide[:, :, 1:])
        x = state[4][:, :, 1:] + self.position(wide)
        frame = x[:, :, 0]
        m = F.linear(state[5], self.A) + F.relu(self.encoder(frame)) * self.B
        h = F.relu(self.hidden(torch.cat([m, frame], dim=-1)))[:, :, None]
        x = x + self.norm(self.proj(h))
        x = x + F.relu(self.norm2(self.reduce(F.gelu(self.norm1(self.expand(x))))))
        total, count = state[6] + self.head(x[:, :, 0]), state[7] + 1
        return total / count, *carried, m, total, count


def _conv(layer: nn.Linear, taps: int) -> nn.Conv1d:
    inputs = layer.in_features // taps
    conv = nn.Conv1d(inputs, layer.out_features, taps, padding=taps // 2, bias=layer.bias is not None)
    conv.weight.data.copy_(layer.weight.detach().view(layer.out_features, taps, inputs).permute(0, 2, 1))
    if layer.bias is not None:
        conv.bias.data.copy_(layer.bias.detach())
    return conv


def _norm(norm: BatchNorm) -> nn.BatchNorm1d:
    made = nn.BatchNorm1d(norm.num_features)
    made.load_state_dict(norm.state_dict())
    return made


class Calibration(CalibrationDataReader):
    """Feeds of a graph, one after the other."""

    def __init__(self, feeds: list[dict[str, np.ndarray]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def stock(net: LMUFormer, clips: Tensor, folder: Path) -> dict[str, Path]:
    """Stock files: export, then static and dynamic quantization of clip and step."""
    paths = {}
    clip, step = StockClip(net).eval(), StockStep(net).eval()
    widths = [net.config.features, *net.config.widths]
    state = [torch.zeros(1, w, 2) for w in widths] + [torch.zeros(1, net.mixer.memory.order)]
    state += [torch.zeros(1, net.config.classes), torch.zeros(1, 1)]
    names = [f"s{i}" for i in range(len(state))]
    for name, module, example in (("clip", clip, (clips[:1],)), ("step", step, (clips[:1, :1], *state))):
        path = folder / f"stock-{name}-fp32.onnx"
        inputs = ["features", *(names if name == "step" else [])]
        outputs = ["logits", *([f"{n}_out" for n in names] if name == "step" else [])]
        torch.onnx.export(module, example, path, input_names=inputs, output_names=outputs, opset_version=18,
                          external_data=False, dynamo=True, verbose=False)  # fmt: skip
        paths[f"stock {name} fp32"] = path
        ready = folder / f"{name}-ready.onnx"
        quant_pre_process(path, ready)
        feeds = [{"features": clips[i : i + 1].numpy()} for i in range(len(clips))]
        if name == "step":
            feeds = step_feeds(path, clips[:4].numpy(), names)
        static = folder / f"stock-{name}-static.onnx"
        quantize_static(ready, static, Calibration(feeds), quant_format=QuantFormat.QDQ, per_channel=True,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)  # fmt: skip
        paths[f"stock {name} static int8"] = static
        dynamic = folder / f"stock-{name}-dynamic.onnx"
        quantize_dynamic(ready, dynamic, weight_type=QuantType.QInt8)
        paths[f"stock {name} dynamic int8"] = dynamic
    return paths


def step_feeds(path: Path, clips: np.ndarray, names: list[str]) -> list[dict[str, np.ndarray]]:
    """What a step sees over whole clips."""
    session = session_of(path)
    feeds = []
    for clip in clips:
        feed = zeros(session)
        for frame in clip:
            feed["features"] = frame[None, None]
            feeds.append(dict(feed))
            outputs = session.run(None, feed)
            feed.update(zip(names, outputs[1:], strict=True))
    return feeds


def session_of(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(path), session_options(), providers=["CPUExecutionProvider"])


def zeros(session: ort.InferenceSession) -> dict[str, np.ndarray]:
    return {i.name: np.zeros([d if isinstance(d, int) else 1 for d in i.shape], np.float32) for i in session.get_inputs()}


def feed_of(path: Path, clip: np.ndarray) -> dict[str, np.ndarray]:
    """A real clip, or a real frame with the state that 60 frames of it leave behind."""
    session = session_of(path)
    feed = zeros(session)
    signature = graphs.signature_of(onnx.load(path))
    feed |= {s.name: x for s, x in zip(signature.state, initial_state(signature), strict=True)}
    carried = [i.name for i in session.get_inputs()][1:]
    if not carried:
        return {"features": clip[None]}
    for frame in clip[:60]:
        feed["features"] = frame[None, None]
        feed.update(zip(carried, session.run(None, feed)[1:], strict=True))
    return feed


def latencies(paths: dict[str, Path], clip: np.ndarray, seconds: float) -> dict[str, dict[str, float]]:
    """Median and p95 of each file, calls taken in turn; steps in runs of 20."""
    sessions = {name: (session_of(path), feed_of(path, clip)) for name, path in paths.items()}
    samples: dict[str, list[float]] = {name: [] for name in sessions}
    for session, feed in sessions.values():
        for _ in range(20):
            session.run(None, feed)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, (session, feed) in sessions.items():
            calls = 1 if "clip" in name else 20
            start = time.perf_counter()
            for _ in range(calls):
                session.run(None, feed)
            samples[name].append((time.perf_counter() - start) / calls)
    return {
        name: {"median_s": float(np.median(v)), "p95_s": float(np.percentile(v, 95)), "min_s": min(v), "n": len(v)}
        for name, v in samples.items()
    }


def accuracy(path: Path, features: np.ndarray, labels: np.ndarray, delay: int) -> Score:
    """Correct answers of a file: whole clips, or streams of 128 frames (and `delay` more of nothing) ending in a decision."""
    session = session_of(path)
    names = [i.name for i in session.get_inputs()]
    batch = not isinstance(session.get_inputs()[0].shape[0], int)
    signature = graphs.signature_of(onnx.load(path))
    start = {s.name: x for s, x in zip(signature.state, initial_state(signature), strict=True)}
    correct = 0
    step = 64 if batch and len(names) == 1 else 1
    for i in range(0, len(labels), step):
        part = features[i : i + step]
        if len(names) == 1:
            answer = session.run(None, {"features": part})[0].argmax(1)
        else:
            feed = zeros(session) | start
            for frame in part[0]:
                feed["features"] = frame[None, None]
                outputs = session.run(None, feed)
                feed.update(zip(names[1:], outputs[1:], strict=True))
            answer = outputs[0].reshape(1, -1).argmax(1)
        correct += int((answer == labels[i : i + step]).sum())
    return Score(correct, len(labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/lmuformer_host.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    base = source.open_model("lmuformer")
    data = registry.load("task", "speech-commands").open(args.data, base.labels)
    clips, test = data.calibration(96), data.split("test")
    chosen = test.official
    features, labels = test.features[chosen].numpy(), test.labels[chosen].numpy()
    with tempfile.TemporaryDirectory() as folder:
        paths = stock(base.module, clips, Path(folder))
        for model, passes in (("lmuformer", "default"), ("lmuformer-compact", "int8")):
            for recipe in ("export", passes):
                result = runner.run(read(recipe).with_overrides(model=model, data=str(args.data)), args.runs)
                for artifact in result.artifacts:
                    form = {"clip": "clip", "stream": "step"}[artifact.form]
                    paths[f"edgetk {model} {form} {'fp32' if recipe == 'export' else 'compressed'}"] = (
                        Path(result.folder) / artifact.path
                    )
        rows: dict[str, Any] = latencies(paths, features[0], args.seconds)
        for name, path in paths.items():
            rows[name] |= {"size_bytes": path.stat().st_size, "precision": graphs.precision_of(onnx.load(path))}
            if "dynamic" in name:
                continue  # too slow to be of interest
            if "clip" in name:
                rows[name]["accuracy"] = accuracy(path, features, labels, 0).to_json()
            elif "static" not in name:
                subset = slice(None, None, 4)
                rows[name]["accuracy_every_4th_clip"] = accuracy(path, features[subset], labels[subset], 0).to_json()
            print(name, rows[name], flush=True)
    report = {
        "what": __doc__,
        "conditions": {
            "cpu": machine.cpu_model(),
            "cores": machine.cores(),
            "threads": 1,
            "load_average": machine.load_average(),
            "onnxruntime": ort.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": data.origin,
        },
        "rows": rows,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
