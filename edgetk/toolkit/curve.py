"""Early decision in numbers: how often a stream is right after every token, what it has heard by then, and when it may stop.

Two axes, which are not the same. Token n (1-based) is a row of the network; it is known once frame n + look-ahead is there.
Frames of padding behind the real ones are known beforehand and cost no waiting, so

    frames heard (n) = min(n + look-ahead, real frames)

and what counts after f frames is the last token known by then: all of them, once the real frames are heard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgetk.core.errors import PostconditionError
from edgetk.core.figures import Score
from edgetk.core.signature import Signature
from edgetk.toolkit.evaluate import lookahead

if TYPE_CHECKING:
    import torch

#: a saving is what may be left unheard while accuracy stays at this share (in percent) of what it is at the end
OF_FINAL = 99


@dataclass(frozen=True)
class Axis:
    """How tokens, frames heard and time belong together. All counts are 1-based; times in seconds.

    tokens     decisions of a whole input: its frames, padding included
    real       frames of it that hold input, the first ones
    lookahead  frames that a decision waits for
    hop_s      from one frame to the next
    window_s   how much input one frame sees
    """

    tokens: int
    real: int
    lookahead: int
    hop_s: float
    window_s: float

    @property
    def first(self) -> int:
        """Frames heard at the first decision."""
        return self.heard(1)

    def heard(self, token: int) -> int:
        """Frames that must have arrived for the decision after `token`."""
        return min(token + self.lookahead, self.real)

    def token(self, heard: int) -> int:
        """The last token known after `heard` frames, from `first` on."""
        return self.tokens if heard >= self.real else heard - self.lookahead

    def seconds(self, heard: float) -> float:
        """From the start of the first frame to the end of the last of `heard` frames; a mean count gives the mean time."""
        return round(self.window_s + (heard - 1) * self.hop_s, 9)

    def to_json(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "real_frames": self.real,
            "lookahead_frames": self.lookahead,
            "hop_s": self.hop_s,
            "window_s": self.window_s,
        }


def axis_of(signature: Signature, tokens: int, front_end: Mapping[str, Any]) -> Axis:
    """The axis of a stream on inputs of `tokens` frames, of a task with this front end.

    A task says with `clip_frames` how many frames of an input are real, and with `hop_samples`, `window_samples` and
    `sample_rate` when they come and how much each sees; without these all frames are real, one comes every period of the stream
    and is as long as that. Raises PostconditionError where that makes no sense.
    """
    assert signature.period_s, "a decider refuses streams without a period"
    real = front_end.get("clip_frames", tokens)
    rate = front_end.get("sample_rate", 1 / signature.period_s)
    hop, window = (front_end.get(key, rate * signature.period_s) / rate for key in ("hop_samples", "window_samples"))
    if not isinstance(real, int) or real < 1 or not hop > 0 or not window > 0:
        raise PostconditionError(
            f"curve: the task's front end must have a clip_frames of at least 1, a hop and a window longer than nothing, "
            f"got {real!r}, {hop:g} s and {window:g} s; correct the task"
        )
    return Axis(tokens, min(real, tokens), lookahead(signature), hop, window)


@dataclass(frozen=True)
class Trace:
    """What a model decided on every example (row) after every token (column).

    right (N, T) bool: the largest score was that of the label; sure (N, T) float64: the largest softmax probability.
    """

    right: torch.Tensor
    sure: torch.Tensor

    @classmethod
    def of(cls, scores: torch.Tensor, labels: torch.Tensor) -> Trace:
        """From running scores (N, T, K), taken as logits, and class indices (N,)."""
        return cls(scores.argmax(-1) == labels[:, None], scores.double().softmax(-1).amax(-1))

    @classmethod
    def join(cls, parts: Sequence[Trace]) -> Trace:
        """Several batches, one after another."""
        import torch

        return cls(torch.cat([p.right for p in parts]), torch.cat([p.sure for p in parts]))

    def correct(self) -> list[int]:
        """Right answers after each token."""
        return [int(n) for n in self.right.sum(0)]


def points(correct: Sequence[int], n: int, axis: Axis) -> list[dict[str, Any]]:
    """Accuracy with its interval after every token, on both axes."""
    return [{"token": t, **_when(axis, axis.heard(t)), **_share(c, n)} for t, c in enumerate(correct, start=1)]


def saving(correct: Sequence[int], n: int, axis: Axis, of_final: int = OF_FINAL) -> dict[str, Any]:
    """The fewest frames heard from which on accuracy stays at `of_final` percent of the final one, and what that saves.

    `saved` is the share of real frames that need not be heard. `published` counts as papers do: tokens of all tokens, as if a
    token were known with its own frame and padding had to be waited for.
    """
    heard = axis.real
    while heard > axis.first and _holds(correct, axis.token(heard - 1), of_final):
        heard -= 1
    token = axis.tokens
    while token > 1 and _holds(correct, token - 1, of_final):
        token -= 1
    known = axis.token(heard)
    return {
        "of_final": of_final / 100,
        "token": known,
        **_when(axis, heard),
        **_share(correct[known - 1], n),
        "saved": 1 - heard / axis.real,
        "published": {
            "token": token,
            "of_tokens": axis.tokens,
            **_share(correct[token - 1], n),
            "saved": 1 - token / axis.tokens,
            "counting": "tokens of all tokens; no look-ahead, padding counted as input",
        },
    }


def leave(trace: Trace, axis: Axis, threshold: float, earliest: int = 1) -> dict[str, Any]:
    """Each example is decided at its first token whose largest probability is at least `threshold`, else at the last one.

    Nothing is decided before `earliest` frames are heard. `early` is the share decided before all real frames were heard,
    `never` the share that did not reach the threshold.
    """
    import torch

    reached = trace.sure >= threshold
    reached[:, : max(earliest - axis.lookahead, 1) - 1] = False
    never = ~reached.any(1)
    token = torch.where(never, axis.tokens, reached.int().argmax(1) + 1)
    heard = (token + axis.lookahead).clamp(max=axis.real)
    mean, n = float(heard.double().mean()), len(token)
    median = float(heard.double().quantile(0.5))
    return {
        "threshold": threshold,
        "earliest_frame": earliest,
        **_share(int(trace.right.gather(1, (token - 1)[:, None]).sum()), n),
        "mean_frames": mean,
        "median_frames": median,
        "mean_s": axis.seconds(mean),
        "saved": 1 - mean / axis.real,
        "early": int((heard < axis.real).sum()) / n,
        "never": int(never.sum()) / n,
    }


def _holds(correct: Sequence[int], token: int, of_final: int) -> bool:
    return 100 * correct[token - 1] >= of_final * correct[-1]  # integers: no rounding decides about a frame


def _when(axis: Axis, heard: int) -> dict[str, Any]:
    return {"frames": heard, "seconds": axis.seconds(heard)}


def _share(correct: int, n: int) -> dict[str, Any]:
    score = Score(correct, n)
    return {"top1": score.top1, "n": n, "ci95": list(score.ci95)}


__all__ = ["OF_FINAL", "Axis", "Trace", "axis_of", "leave", "points", "saving"]
