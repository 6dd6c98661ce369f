"""How a model does on long composed streams, as data: `edgetk evaluate --streaming`; docs/streaming.md has the keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

import edgetk
from edgetk.core.contracts import Data
from edgetk.core.errors import PreconditionError
from edgetk.tasks.speech import front_end as fe
from edgetk.tasks.speech.detect import Rule, detections, smoothed
from edgetk.tasks.speech.gate import GateRule, levels, segments
from edgetk.tasks.speech.stream_score import (
    MLPERF_MINUTES,
    MLPERF_MOST,
    MLPERF_SAID,
    THRESHOLDS,
    TOLERANCE_S,
    Count,
    count,
)
from edgetk.tasks.speech.streams import Composed, Scene, compose
from edgetk.tasks.speech.words import SILENCE
from edgetk.toolkit.progress import Progress, Silent
from edgetk.toolkit.stream import Streamed, TorchSteps
from edgetk.toolkit.stream_listen import Timings, heard

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgetk.tasks.speech.data import SpeechData

#: the bars: false accepts per hour, and share of false rejects
MOST_PER_HOUR, MOST_REJECTED = 0.5, 0.05
#: clips of other words in a stream around a keyword, and of all words together in one without
_OTHERS, _SAID = 150, 200
#: first steps that are compared with many frames at once (a whole piece and the beginning of the next), and how equal they
#: must be, as a share of the largest logit
_PROBED, _SAME = 1500, 1e-3
#: seconds of sound whose features are computed at once
_BLOCK_S = 10


@dataclass(frozen=True)
class Plan:
    """Which streams, and what listens to them.

    keyword  the one watched word; "" for all labels, each said equally often
    streams  how many of `minutes` each; their seeds are seed, seed + 1, …
    """

    keyword: str = ""
    streams: int = 1
    minutes: float = MLPERF_MINUTES
    seed: int = 0
    rule: Rule = field(default_factory=Rule)
    gate: GateRule | None = None

    def scene(self, labels: Sequence[str]) -> Scene:
        """What one stream holds: in 20 minutes 50 keywords and 150 other words, or 200 words of all labels."""
        share = self.minutes / MLPERF_MINUTES
        if self.keyword:
            said, others = round(MLPERF_SAID * share), round(_OTHERS * share)
            return Scene.around(self.keyword, labels, self.minutes, said, others)
        words = [label for label in labels if label != SILENCE]
        total = round(_SAID * share)
        counts = {word: total // len(words) + (i < total % len(words)) for i, word in enumerate(words)}
        return Scene(self.minutes, counts)


@dataclass(frozen=True)
class _Scored:
    """One stream as the network heard it: each segment's first frame and its probabilities, and the truth."""

    parts: tuple[tuple[int, NDArray[np.float64]], ...]
    stream: Composed

    @property
    def seconds(self) -> float:
        return len(self.stream.samples) / fe.SAMPLE_RATE


def study(model: Streamed, data: Data, split: str, plan: Plan, progress: Progress | None = None) -> dict[str, Any]:
    """Compose the streams of `plan` from `split`, run the model step by step over them, and count.

    Raises PreconditionError where the data are no speech, InputError for words without clips, UsageError for a keyword that
    is no label or words that do not fit.
    """
    from edgetk.tasks.speech.data import SpeechData

    progress = progress or Silent()
    if not isinstance(data, SpeechData):
        raise PreconditionError(
            f"evaluate: --streaming composes streams of spoken clips, got data of another kind ({data.origin}); leave it out"
        )
    rule = replace(plan.rule, words=(plan.keyword,) if plan.keyword else ())
    watched = [label for label, on in zip(model.labels, rule.watched(model.labels), strict=True) if on]
    scene, network = plan.scene(model.labels), _Network(model, progress)
    scored, share = _score_all(model, data, split, plan, scene, rule, network, progress)
    thresholds = sorted({*THRESHOLDS, rule.threshold})
    times = network.timings
    curve = [{"threshold": t, **_total(scored, replace(rule, threshold=t), model, watched).to_json()} for t in thresholds]
    each = [_count(one, rule, model, watched) for one in scored]
    seconds = sum(one.seconds for one in scored)
    said = {o.clip for one in scored for o in one.stream.occurrences if o.word in watched}
    return {
        "edgetk_version": edgetk.__version__,
        "model": model.name,
        "runtime": model.runtime,
        "data": data.origin,
        "split": split,
        "keyword": plan.keyword,
        "words": watched,
        "streams": plan.streams,
        "seed": plan.seed,
        "hours": seconds / 3600,
        "scene": scene.to_json(),
        "background": scored[0].stream.background,
        "distinct_clips": len(said),
        "tolerance_s": TOLERANCE_S,
        "rule": asdict(rule),
        "at_rule": sum(each, Count()).to_json(),
        "bar": _bar(curve, rule.threshold),
        "mlperf": _mlperf(each, plan),
        "curve": curve,
        "alone": [] if plan.keyword else [_alone(scored, rule, model, word, thresholds) for word in watched],
        "cost": {
            "network": times.to_json(),
            "at_once": bool(network.at_once),
            "steps_share": share,
            "duty": share * times.total_s / times.n / model.period_s if times.n else 0.0,
            "gate": asdict(plan.gate) if plan.gate else None,
        },
    }


def _score_all(
    model: Streamed,
    data: SpeechData,
    split: str,
    plan: Plan,
    scene: Scene,
    rule: Rule,
    network: _Network,
    progress: Progress,
) -> tuple[list[_Scored], float]:
    """Every stream with its probabilities, and the share of the frames that the network heard."""
    clips, recordings = data.waves(split), data.layout.recordings()
    found, frames, steps = [], 0, 0
    with progress.task(f"streaming {model.name}", plan.streams * plan.minutes) as step:
        for i in range(plan.streams):
            composed = compose(scene, clips, recordings, split, plan.seed + i)
            samples = composed.samples.astype(np.float32) / 32768.0
            features = frames_of(samples)
            frames += len(features)
            heard_of = segments(levels(samples), plan.gate) if plan.gate else [(0, len(features))]
            parts = []
            for start, end in heard_of:
                parts.append((start, smoothed(network.rows(features[start:end]), rule.window)))
                steps += end - start
                step.advance((end - start) * model.period_s / 60)
            found.append(_Scored(tuple(parts), composed))
    return found, steps / frames


def frames_of(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Frames (T, 128) of a whole stream, as the streaming front end gives them."""
    import torch

    from edgetk.tasks.speech.log_mel import StreamingLogMel

    front_end, block = StreamingLogMel(), _BLOCK_S * fe.SAMPLE_RATE
    with torch.inference_mode():
        pieces = [front_end.push(torch.from_numpy(samples[at : at + block])) for at in range(0, len(samples), block)]
        frames: NDArray[np.float32] = torch.cat(pieces).numpy()
    return frames


class _Network:
    """A fresh stream over frames, as logits of each: many frames at once where that gives what single steps give.

    The first `_PROBED` frames are always run, and timed, step by step; a network whose steps differ from the pieces (spiking
    neurons keep the phase in which they fire) is run step by step throughout.
    """

    def __init__(self, model: Streamed, progress: Progress) -> None:
        self.model, self.timings, self._progress = model, Timings(), progress
        self.at_once, self._probed = False, not isinstance(model.steps, TorchSteps)

    def rows(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Frames (T, F) -> logits (T - lookahead, K)."""
        if not self._probed and len(features) >= _PROBED:
            self._probe(features[:_PROBED])
        whole = self._whole(features) if self.at_once else None
        return (self._steps(features) if whole is None else whole)[self.model.lookahead :]

    def _probe(self, features: NDArray[np.float32]) -> None:
        """Compare both ways, once, and say if they differ."""
        self._probed = True
        whole = self._whole(features)
        if whole is None:
            return
        stepped = self._steps(features)
        gap, scale = float(np.abs(whole - stepped).max()), float(np.abs(stepped).max())
        self.at_once = gap <= _SAME * scale
        if not self.at_once:
            self._progress.log(
                f"{self.model.name}: runs step by step, because many frames at once give scores that differ by {gap:.1g} of "
                f"{scale:.2g}; --runtime onnxruntime may be faster"
            )

    def _whole(self, features: NDArray[np.float32]) -> NDArray[np.float32] | None:
        return self.model.steps.whole(features) if isinstance(self.model.steps, TorchSteps) else None

    def _steps(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        steps = self.model.steps
        steps.reset()
        rows = np.empty((len(features), len(self.model.labels)), dtype=np.float32)
        for i, frame in enumerate(features):
            start = perf_counter()
            rows[i] = steps(frame)
            self.timings.add(perf_counter() - start)
        return rows


def _count(one: _Scored, rule: Rule, model: Streamed, words: Sequence[str]) -> Count:
    hits = [
        heard(hit, model, start) for start, probabilities in one.parts for hit in detections(probabilities, rule, model.labels)
    ]
    found = [(hit.time_s, hit.word) for hit in hits]
    return count(found, one.stream.occurrences, words, one.seconds)


def _total(scored: Sequence[_Scored], rule: Rule, model: Streamed, words: Sequence[str]) -> Count:
    return sum((_count(one, rule, model, words) for one in scored), Count())


def _bar(curve: Sequence[dict[str, Any]], threshold: float) -> dict[str, Any]:
    """Both bars at the detector's threshold, and the point of the curve with fewest false rejects below the false accepts.

    `best` is for choosing a threshold, on a split that nothing is reported of.
    """
    kept = [p for p in curve if p["false_accepts_per_hour"] < MOST_PER_HOUR and p["said"]]
    best = min(kept, key=lambda p: (p["false_rejects"], p["false_accepts"], -p["threshold"]), default=None)
    return {
        "false_accepts_per_hour_below": MOST_PER_HOUR,
        "false_reject_rate_below": MOST_REJECTED,
        "met": any(p["threshold"] == threshold and p["false_reject_rate"] < MOST_REJECTED for p in kept),
        "best": best and {key: best[key] for key in ("threshold", "false_reject_rate", "false_accepts_per_hour")},
    }


def _mlperf(each: Sequence[Count], plan: Plan) -> dict[str, Any] | None:
    """The streaming rule of MLPerf Tiny for every stream; None where the streams are not of its kind."""
    if not plan.keyword or plan.minutes != MLPERF_MINUTES:
        return None
    rows = [{"seed": plan.seed + i, "false_positives": c.accepts, "false_negatives": c.rejects} for i, c in enumerate(each)]
    met = [row["false_positives"] <= MLPERF_MOST and row["false_negatives"] <= MLPERF_MOST for row in rows]
    return {
        "rule": f"at most {MLPERF_MOST} false positives and {MLPERF_MOST} false negatives in {MLPERF_MINUTES:g} minutes with "
        f"{MLPERF_SAID} keywords; the audio is edgetk's, not MLPerf's",
        "streams": [{**row, "met": ok} for row, ok in zip(rows, met, strict=True)],
        "met": sum(met),
        "of": len(met),
    }


def _alone(scored: Sequence[_Scored], rule: Rule, model: Streamed, word: str, thresholds: Sequence[float]) -> dict[str, Any]:
    """The same streams with `word` as the only watched one."""
    rows = [
        {"threshold": t, **_total(scored, replace(rule, threshold=t, words=(word,)), model, [word]).to_json()}
        for t in thresholds
    ]
    return {"word": word, "said": rows[0]["said"], "bar": _bar(rows, rule.threshold), "curve": rows}


__all__ = ["MOST_PER_HOUR", "MOST_REJECTED", "Plan", "frames_of", "study"]
