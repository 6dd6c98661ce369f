"""The training loop: soft targets, Adam, falling rates, averaged weights; a whole step as one CUDA graph where there is a GPU.

Everything that a run needs to go on after an interruption is in its `Snapshot`, a flat dictionary of tensors; whoever calls
the loop decides where that is kept.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.core.errors import InputError, UsageError

#: rows (B,) of a training set -> inputs (B, …) and soft targets (B, K); (B, T, K) where a model answers after each token
Batches = Callable[[Tensor], tuple[Tensor, Tensor]]
#: a run's state as flat tensors
Snapshot = dict[str, Tensor]


@dataclass(frozen=True)
class Schedule:
    """How to train. The defaults are LMUFormer's published recipe (arXiv:2402.04882, code): Adam, x0.85 every 10 epochs."""

    epochs: int = 200
    #: steps of an epoch, in a new order each time; 0: as many as the training set has whole batches
    steps: int = 0
    batch: int = 128
    lr: float = 2.5e-3
    #: factor on the rate of look-up tables (`tables_of` of a layer), most of whose rows have no gradient in a step; no decay
    table_rate: float = 1.0
    betas: tuple[float, float] = (0.95, 0.999)
    weight_decay: float = 0.0
    #: True: weights shrink by lr * weight_decay a step, apart from the gradient (AdamW), biases and norms do not; False: L2
    decoupled: bool = False
    #: "bce": binary cross entropy of each class's sigmoid; "ce": cross entropy of the softmax over all classes
    loss: str = "bce"
    #: "step": lr * decay ** (epoch // decay_every); "cosine": half a cosine to zero
    shape: str = "step"
    decay: float = 0.85
    decay_every: int = 10
    warmup: int = 0
    #: decay of the exponential moving average of the weights; 0 evaluates the weights themselves
    average: float = 0.0
    #: share of the teacher's outputs (sigmoids for "bce", softmax for "ce") in the targets, in [0, 1]; needs a teacher
    distill: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2:
            raise UsageError(f"training: epochs must be >= 1 and batch >= 2, got {self.epochs} and {self.batch}; correct them")
        if self.steps < 0:
            raise UsageError(f"training: steps of an epoch must be at least 0, got {self.steps}; 0 is the whole training set")
        if self.shape not in ("step", "cosine"):
            raise UsageError(f"training: shape must be 'step' or 'cosine', got {self.shape!r}; correct it")
        if self.loss not in ("bce", "ce"):
            raise UsageError(f"training: loss must be 'bce' or 'ce', got {self.loss!r}; correct it")
        if not self.weight_decay >= 0.0:
            raise UsageError(f"training: weight_decay must be at least 0, got {self.weight_decay}; correct it")
        if not 0.0 < self.table_rate < math.inf:
            raise UsageError(f"training: table_rate must be above 0, got {self.table_rate}; 1 is the rate of all other weights")
        if not 0.0 <= self.average < 1.0 or not 0.0 <= self.distill <= 1.0 or not self.lr > 0.0:
            raise UsageError(
                "training: average must be in [0, 1), distill in [0, 1] and lr > 0, "
                f"got {self.average}, {self.distill} and {self.lr}; correct them"
            )

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch (0-based)."""
        if epoch < self.warmup:
            return self.lr * (epoch + 1) / (self.warmup + 1)
        if self.shape == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * (epoch - self.warmup) / (self.epochs - self.warmup)))
        return self.lr * self.decay ** (epoch // self.decay_every)


@dataclass(frozen=True)
class Epoch:
    """What an epoch ended with: mean training loss, correct validation answers of `n`, seconds, and the best so far."""

    number: int
    loss: float
    correct: int
    n: int
    seconds: float
    best_number: int
    best_correct: int


class Training:
    """One training run of `net`: iterate over it to train, then take `best`.

    net        the module to train; its whole-input form is `net.clip` or `net` itself
    batches    inputs and soft targets for rows of the training set, on `device`
    rows       size of the training set
    validation features (N, …) and labels (N,), on `device`; the epoch with most correct answers is kept
    """

    def __init__(
        self,
        net: nn.Module,
        batches: Batches,
        rows: int,
        validation: tuple[Tensor, Tensor],
        schedule: Schedule,
        teacher: nn.Module | None = None,
    ) -> None:
        if rows < schedule.batch:
            raise InputError(f"training: needs at least one batch of {schedule.batch} clips, got {rows}; use a smaller batch")
        if schedule.distill > 0 and teacher is None:
            raise UsageError(f"training: distill={schedule.distill} needs a teacher, got none; name one or set distill to 0")
        self.net, self.batches, self.rows, self.validation = net, batches, rows, validation
        self.schedule, self.teacher = schedule, teacher
        self.device = validation[0].device
        self.averaged = copy.deepcopy(net).requires_grad_(False).eval() if schedule.average > 0 else net
        self.trained = [p for p in net.parameters() if p.requires_grad]
        cuda = self.device.type == "cuda"
        kind = torch.optim.AdamW if schedule.decoupled else torch.optim.Adam
        self.optimizer = kind(
            self._groups(),
            lr=torch.tensor(schedule.lr, device=self.device) if cuda else schedule.lr,
            betas=schedule.betas,
            capturable=cuda,
            foreach=True,
        )
        self.epoch = 0
        self.best_epoch, self.best_correct = -1, -1
        self.best: dict[str, Tensor] = {}
        self._loss = torch.zeros((), device=self.device)
        self._chosen = torch.zeros(schedule.batch, dtype=torch.long, device=self.device)
        self._replay: Callable[[], None] | None = None
        torch.manual_seed(schedule.seed)

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters by rate and decay. AdamW as transformers are trained with it: biases and norms do not decay."""
        schedule = self.schedule
        tables = {id(getattr(layer, name)) for layer in self.net.modules() for name in getattr(layer, "tables_of", ())}
        groups: dict[tuple[bool, bool], dict[str, Any]] = {}
        for p in self.trained:
            table = id(p) in tables
            decays = not table and (p.ndim > 1 or not schedule.decoupled)
            factor = schedule.table_rate if table else 1.0
            fresh = {"params": [], "weight_decay": schedule.weight_decay if decays else 0.0, "factor": factor}
            if self.device.type == "cuda":
                fresh["lr"] = torch.tensor(schedule.lr, device=self.device)  # one tensor each, for rates differ
            groups.setdefault((table, decays), fresh)["params"].append(p)
        return list(groups.values())

    def __iter__(self) -> Iterator[Epoch]:
        while self.epoch < self.schedule.epochs:
            yield self._train_epoch()

    def _train_epoch(self) -> Epoch:
        begin = time.monotonic()
        for group in self.optimizer.param_groups:
            rate = self.schedule.rate(self.epoch) * group["factor"]
            group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], Tensor) else rate
        self.net.train()
        step = self._replay or self._prepare()
        order = torch.randperm(self.rows, device=self.device)
        steps = min(self.rows // self.schedule.batch, self.schedule.steps or self.rows)
        self._loss.zero_()
        for i in range(steps):
            self._chosen.copy_(order[i * self.schedule.batch : (i + 1) * self.schedule.batch])
            step()
        self.epoch += 1
        correct = self._validate()
        if correct > self.best_correct:
            self.best_epoch, self.best_correct = self.epoch, correct
            self.best = {k: v.detach().clone() for k, v in self.averaged.state_dict().items()}
        seconds = time.monotonic() - begin
        loss = float(self._loss) / steps
        return Epoch(self.epoch, loss, correct, len(self.validation[1]), seconds, self.best_epoch, self.best_correct)

    def _step(self) -> None:
        x, targets = self.batches(self._chosen)
        answer = running if targets.ndim == 3 else call
        if self.teacher is not None and self.schedule.distill > 0:
            with torch.no_grad(), self._autocast():
                taught = answer(self.teacher, x).float()
            soft = torch.sigmoid(taught) if self.schedule.loss == "bce" else torch.softmax(taught, -1)
            targets = torch.lerp(targets, soft, self.schedule.distill)
        with self._autocast():
            logits = answer(self.net, x)
        measure = F.binary_cross_entropy_with_logits if self.schedule.loss == "bce" else F.cross_entropy
        loss = measure(logits.float().flatten(0, -2), targets.flatten(0, -2))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self._loss += loss.detach()
        if self.schedule.average > 0:
            self._average()

    def _autocast(self) -> torch.autocast:
        # The cache would hold casts of weights across replays of the graph.
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda", cache_enabled=False)

    def _average(self) -> None:
        with torch.no_grad():
            pairs = zip(self.averaged.state_dict().values(), self.net.state_dict().values(), strict=True)
            floating = [(a, b) for a, b in pairs if a.is_floating_point()]
            torch._foreach_lerp_([a for a, _ in floating], [b for _, b in floating], 1 - self.schedule.average)

    def _prepare(self) -> Callable[[], None]:
        """The step as a function: eager on the CPU; on a GPU captured once, then replayed."""

        def eager() -> None:
            self.optimizer.zero_grad(set_to_none=True)
            self._step()

        if self.device.type != "cuda":
            self._replay = eager
            return eager
        kept = {k: v.clone() for k, v in self.snapshot().items()}
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # lets libraries choose algorithms and allocate outside the capture
                eager()
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        self.restore(kept)
        self._replay = graph.replay
        return graph.replay

    @torch.inference_mode()
    def _validate(self) -> int:
        net = self.averaged.eval()
        features, labels = self.validation
        correct = torch.zeros((), dtype=torch.long, device=self.device)
        for i in range(0, len(labels), 512):
            correct += (call(net, features[i : i + 512]).argmax(1) == labels[i : i + 512]).sum()
        return int(correct)

    def snapshot(self) -> Snapshot:
        """All that `restore` needs to go on from here."""
        state = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        if self.averaged is not self.net:
            state |= {f"averaged.{k}": v for k, v in self.averaged.state_dict().items()}
        for i, parameter in enumerate(self.trained):
            state |= {f"adam.{i}.{k}": v for k, v in self.optimizer.state.get(parameter, {}).items()}
        state |= {f"best.{k}": v for k, v in self.best.items()}
        state["progress"] = torch.tensor([self.epoch, self.best_epoch, self.best_correct])
        state["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            state["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    @torch.no_grad()
    def restore(self, state: Snapshot) -> None:
        """Go on from a snapshot of a run with the same schedule and shapes."""
        parts: dict[str, dict[str, Tensor]] = {"net": {}, "averaged": {}, "best": {}}
        for name, value in state.items():
            head, _, tail = name.partition(".")
            if head in parts:
                parts[head][tail] = value
        self.net.load_state_dict(parts["net"])
        if self.averaged is not self.net:
            self.averaged.load_state_dict(parts["averaged"])
        self.best = {k: v.to(self.device) for k, v in parts["best"].items()}
        for i, parameter in enumerate(self.trained):
            if f"adam.{i}.step" in state:
                slot = self.optimizer.state[parameter]
                for key in ("step", "exp_avg", "exp_avg_sq"):
                    value = state[f"adam.{i}.{key}"].to(parameter.device if key != "step" or parameter.is_cuda else "cpu")
                    # In place where it exists: a captured graph writes to these very tensors.
                    slot[key] = slot[key].copy_(value) if key in slot else value.clone()
            else:  # the snapshot is older than the first step
                for value in self.optimizer.state.get(parameter, {}).values():
                    value.zero_()
        self.epoch, self.best_epoch, self.best_correct = state["progress"].tolist()
        torch.set_rng_state(state["random.cpu"].cpu())
        if "random.cuda" in state:
            torch.cuda.set_rng_state(state["random.cuda"].cpu(), self.device)


def call(net: nn.Module, x: Tensor) -> Tensor:
    """Class scores of whole inputs: `net.clip(x)` where a streaming model has it, else `net(x)`."""
    clip: Callable[[Tensor], Tensor] = getattr(net, "clip", net)
    return clip(x)


def running(net: nn.Module, x: Tensor) -> Tensor:
    """Class scores after each token of whole inputs, (B, T, K). Raises InputError for a model that does not offer them."""
    answer: Callable[[Tensor], Tensor] | None = getattr(net, "running", None)
    if answer is None:
        raise InputError(
            f"training: data with an answer for each token need a model with a method running(x), got {type(net).__name__} "
            "without one; add it or choose another task"
        )
    return answer(x)
