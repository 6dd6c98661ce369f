"""The training loop: learning rates by hand, exact resuming, averaged weights, distillation, refused settings."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.core.errors import InputError, UsageError
from edgetk.tasks.training.loop import Schedule, Training, call

CLASSES, FEATURES, ROWS = 3, 4, 24
X = torch.randn(ROWS, FEATURES, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(ROWS) % CLASSES
VALIDATION = (X[:9] + LABELS[:9, None], LABELS[:9])


def batches(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy inputs: resuming must restore the random numbers, too."""
    x = X[rows] + LABELS[rows, None] + 0.1 * torch.randn(len(rows), FEATURES)
    return x, F.one_hot(LABELS[rows], CLASSES).float()


def still(rows: Tensor) -> tuple[Tensor, Tensor]:
    return X[rows], F.one_hot(LABELS[rows], CLASSES).float()


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, CLASSES))


def training(schedule: Schedule, **changes: object) -> Training:
    given: dict[str, object] = {"batches": batches, "rows": ROWS, "validation": VALIDATION, **changes}
    return Training(net(), schedule=schedule, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(("steps", "made"), [(0, 4), (1, 1), (3, 3), (9, 4)])
def test_an_epoch_has_so_many_steps_of_other_rows_each(steps: int, made: int) -> None:
    seen: list[list[int]] = []

    def watched(rows: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(rows.tolist())
        return still(rows)

    for _ in training(Schedule(epochs=2, batch=6, steps=steps), batches=watched):
        pass
    assert len(seen) == 2 * made
    first, second = ([row for rows in half for row in rows] for half in (seen[:made], seen[made:]))
    assert len(set(first)) == len(set(second)) == 6 * made
    assert first != second


def test_step_decay_by_hand() -> None:
    schedule = Schedule(lr=2.5e-3)
    rates = [schedule.rate(epoch) for epoch in (0, 9, 10, 19, 20, 199)]
    assert rates == pytest.approx([2.5e-3, 2.5e-3, 2.125e-3, 2.125e-3, 1.80625e-3, 2.5e-3 * 0.85**19])


def test_cosine_with_warm_up_by_hand() -> None:
    schedule = Schedule(epochs=10, lr=1.0, shape="cosine", warmup=2)
    assert [schedule.rate(epoch) for epoch in range(3)] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert schedule.rate(6) == pytest.approx(0.5)  # half of the eight epochs after the warm-up
    assert schedule.rate(4) == pytest.approx(0.5 * (1 + 2**-0.5))
    assert schedule.rate(9) == pytest.approx(0.5 * (1 - 0.9238795325112867))


def test_defaults_are_the_published_recipe() -> None:
    schedule = Schedule()
    assert (schedule.epochs, schedule.batch, schedule.lr, schedule.betas) == (200, 128, 2.5e-3, (0.95, 0.999))
    assert (schedule.shape, schedule.decay, schedule.decay_every) == ("step", 0.85, 10)
    assert (schedule.warmup, schedule.average, schedule.distill, schedule.weight_decay) == (0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_resumed_run_equals_the_uninterrupted_one_bit_by_bit(average: float) -> None:
    schedule = Schedule(epochs=6, batch=8, average=average, seed=5)
    whole = training(schedule)
    expected = list(whole)
    first = training(schedule)
    before = [next(iter(first)) for _ in range(3)]
    kept = {name: value.clone() for name, value in first.snapshot().items()}
    torch.manual_seed(99)  # whatever happens in between
    second = training(schedule)
    second.restore(kept)
    after = list(second)
    assert [(e.number, e.loss, e.correct) for e in before + after] == [(e.number, e.loss, e.correct) for e in expected]
    assert (second.best_epoch, second.best_correct) == (whole.best_epoch, whole.best_correct)
    for name, value in whole.snapshot().items():
        assert torch.equal(value, second.snapshot()[name]), name


def test_snapshot_before_the_first_step_is_the_start() -> None:
    schedule = Schedule(epochs=2, batch=8)
    fresh = training(schedule)
    kept = {name: value.clone() for name, value in fresh.snapshot().items()}
    expected = [epoch.loss for epoch in fresh]
    fresh.restore(kept)
    assert fresh.epoch == 0
    assert [epoch.loss for epoch in fresh] == expected


def test_same_seed_same_run_other_seed_other_run() -> None:
    losses = [[epoch.loss for epoch in training(Schedule(epochs=2, batch=8, seed=seed))] for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_average_is_the_exponential_moving_average_of_the_weights() -> None:
    schedule = Schedule(epochs=1, batch=24, average=0.75, lr=0.1)  # one step
    run = training(schedule)
    start = {name: value.clone() for name, value in run.net.state_dict().items()}
    next(iter(run))
    now = run.net.state_dict()
    for name, value in run.averaged.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * start[name] + 0.25 * now[name])
    assert not torch.equal(run.averaged.state_dict()["0.weight"], now["0.weight"])
    for name, value in run.best.items():  # what is validated and kept are the averaged weights
        assert torch.equal(value, run.averaged.state_dict()[name])


def test_best_epoch_is_the_first_with_most_correct_answers() -> None:
    run = training(Schedule(epochs=8, batch=8, lr=0.05))
    epochs = list(run)
    assert run.best_correct == max(epoch.correct for epoch in epochs)
    assert run.best_epoch == next(epoch.number for epoch in epochs if epoch.correct == run.best_correct)
    assert [epoch.best_correct for epoch in epochs] == [max(e.correct for e in epochs[: i + 1]) for i in range(8)]
    assert epochs[-1].loss < epochs[0].loss
    best = net().eval()
    best.load_state_dict(run.best)
    assert int((call(best, VALIDATION[0]).argmax(1) == VALIDATION[1]).sum()) == run.best_correct


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_distillation_mixes_the_teachers_sigmoids_into_the_targets(share: float) -> None:
    torch.manual_seed(11)
    teacher = nn.Linear(FEATURES, CLASSES).requires_grad_(False)
    student = nn.Linear(FEATURES, CLASSES)
    untouched = copy.deepcopy(student)
    schedule = Schedule(epochs=1, batch=ROWS, distill=share)
    run = Training(student, still, ROWS, VALIDATION, schedule, teacher)
    loss = next(iter(run)).loss
    targets = (1 - share) * F.one_hot(LABELS, CLASSES).float() + share * torch.sigmoid(teacher(X))
    expected = F.binary_cross_entropy_with_logits(untouched(X), targets).item()
    assert loss == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_cross_entropy_by_hand_with_the_teachers_softmax(share: float) -> None:
    torch.manual_seed(11)
    teacher = nn.Linear(FEATURES, CLASSES).requires_grad_(False)
    student = nn.Linear(FEATURES, CLASSES)
    untouched = copy.deepcopy(student)
    run = Training(student, still, ROWS, VALIDATION, Schedule(epochs=1, batch=ROWS, distill=share, loss="ce"), teacher)
    loss = next(iter(run)).loss
    targets = (1 - share) * F.one_hot(LABELS, CLASSES).float() + share * torch.softmax(teacher(X), 1)
    expected = -(targets * torch.log_softmax(untouched(X), 1)).sum(1).mean().item()
    assert loss == pytest.approx(expected, abs=1e-6)


def test_decoupled_decay_shrinks_weights_alone() -> None:
    student = nn.Linear(FEATURES, CLASSES)
    start = copy.deepcopy(student.state_dict())
    schedule = Schedule(epochs=1, batch=ROWS, lr=0.01, weight_decay=0.5, decoupled=True)
    next(iter(Training(student, still, ROWS, VALIDATION, schedule)))
    plain = nn.Linear(FEATURES, CLASSES)
    plain.load_state_dict(start)
    next(iter(Training(plain, still, ROWS, VALIDATION, Schedule(epochs=1, batch=ROWS, lr=0.01))))
    # Adam's step does not depend on the decay: what differs is lr * weight_decay of the weights, and no bias
    torch.testing.assert_close(student.weight.detach() - plain.weight.detach(), -0.01 * 0.5 * start["weight"])
    assert torch.equal(student.bias, plain.bias)


def test_whole_input_form_is_preferred() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("the stream form was called")

        def clip(self, x: Tensor) -> Tensor:
            return 2 * x

    assert torch.equal(call(Two(), X), 2 * X)
    assert torch.equal(call(nn.Identity(), X), X)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"epochs": 0}, r"training: epochs must be >= 1 and batch >= 2, got 0 and 128; correct them"),
        ({"batch": 1}, r"training: epochs must be >= 1 and batch >= 2, got 200 and 1; correct them"),
        ({"steps": -1}, r"training: steps of an epoch must be at least 0, got -1; 0 is the whole training set"),
        ({"shape": "linear"}, r"training: shape must be 'step' or 'cosine', got 'linear'; correct it"),
        ({"loss": "mse"}, r"training: loss must be 'bce' or 'ce', got 'mse'; correct it"),
        ({"weight_decay": -0.1}, r"training: weight_decay must be at least 0, got -0.1; correct it"),
        ({"average": 1.0}, r"training: average must be in \[0, 1\), .*got 1.0, 0.0 and 0.0025; correct them"),
        ({"distill": 1.5}, r"distill in \[0, 1\] and lr > 0, got 0.0, 1.5 and 0.0025; correct them"),
        ({"lr": float("nan")}, r"lr > 0, got 0.0, 0.0 and nan; correct them"),
    ],
)
def test_refused_schedules(settings: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Schedule(**settings)  # type: ignore[arg-type]


def test_refused_runs() -> None:
    with pytest.raises(InputError, match=r"training: needs at least one batch of 128 clips, got 24; use a smaller batch"):
        training(Schedule())
    with pytest.raises(UsageError, match=r"training: distill=0.5 needs a teacher, got none; name one or set distill to 0"):
        training(Schedule(batch=8, distill=0.5))


class Tables(nn.Module):
    """A look-up table beside a linear layer."""

    tables_of = ("table",)

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(2, FEATURES))
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(x * self.table[0])
        return result


@pytest.mark.parametrize("decoupled", [True, False])
def test_tables_have_a_rate_of_their_own_and_no_decay(decoupled: bool) -> None:
    options = {"epochs": 1, "batch": 24, "lr": 0.01, "weight_decay": 0.5, "decoupled": decoupled}
    moved = []
    for rate in (1.0, 3.0):
        torch.manual_seed(0)
        run = Training(Tables(), still, ROWS, VALIDATION, Schedule(table_rate=rate, **options))  # type: ignore[arg-type]
        before = {name: value.clone() for name, value in run.net.state_dict().items()}
        next(iter(run))
        after = run.net.state_dict()
        moved.append({name: (after[name] - before[name]).abs() for name in before})
        assert after["table"][1].tolist() == [1.0] * FEATURES  # nobody read it, and it does not shrink
    # the first step of Adam is the rate, whatever the gradient
    assert moved[0]["table"][0].tolist() == pytest.approx([0.01] * FEATURES, rel=1e-3)
    assert moved[1]["table"][0].tolist() == pytest.approx([0.03] * FEATURES, rel=1e-3)
    torch.testing.assert_close(moved[0]["head.bias"], moved[1]["head.bias"])


def test_table_rate_follows_the_schedule() -> None:
    run = Training(Tables(), still, ROWS, VALIDATION, Schedule(epochs=3, batch=24, lr=0.1, shape="cosine", table_rate=3.0))
    for number, _ in enumerate(run):
        rates = sorted(group["lr"] for group in run.optimizer.param_groups)
        assert rates == pytest.approx([run.schedule.rate(number), 3 * run.schedule.rate(number)])


def test_resumed_run_with_tables_equals_the_uninterrupted_one() -> None:
    def fresh() -> Training:
        torch.manual_seed(0)
        schedule = Schedule(epochs=4, batch=8, table_rate=3.0, weight_decay=0.1, decoupled=True)
        return Training(Tables(), batches, ROWS, VALIDATION, schedule)

    expected = [e.loss for e in fresh()]
    first = fresh()
    before = [next(iter(first)).loss for _ in range(2)]
    kept = {name: value.clone() for name, value in first.snapshot().items()}
    second = fresh()
    second.restore(kept)
    assert before + [e.loss for e in second] == expected


class Running(nn.Module):
    """Scores after each of several tokens (B, T, F)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.head = nn.Linear(FEATURES, CLASSES)

    def running(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(x)
        return result

    def forward(self, x: Tensor) -> Tensor:
        return self.running(x)[:, -1]


def every_token(rows: Tensor) -> tuple[Tensor, Tensor]:
    x = X[rows][:, None] * torch.tensor([1.0, -1.0])[:, None]
    return x, F.one_hot(torch.stack([LABELS[rows], LABELS[rows] * 0], 1), CLASSES).float()


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_every_token_may_have_an_answer(loss: str) -> None:
    held_out = every_token(torch.arange(9))[0], LABELS[:9]
    schedule = Schedule(epochs=1, batch=24, loss=loss, distill=0.25)
    teacher, net = Running(), Running()
    nn.init.zeros_(teacher.head.weight)
    x, targets = every_token(torch.arange(ROWS))
    given = torch.softmax(teacher.running(x), -1) if loss == "ce" else torch.sigmoid(teacher.running(x))
    mixed, scores = torch.lerp(targets, given, 0.25).reshape(-1, CLASSES), net.running(x).reshape(-1, CLASSES)
    measure = F.cross_entropy if loss == "ce" else F.binary_cross_entropy_with_logits
    expected = float(measure(scores, mixed).detach())
    epoch = next(iter(Training(net, every_token, ROWS, held_out, schedule, teacher)))
    assert epoch.loss == pytest.approx(expected, rel=1e-5)
    assert epoch.n == 9


def test_a_model_that_cannot_answer_after_each_token() -> None:
    run = Training(net(), every_token, ROWS, VALIDATION, Schedule(epochs=1, batch=24))
    with pytest.raises(InputError, match=r"need a model with a method running\(x\), got Sequential without one; add it"):
        next(iter(run))


def test_table_rate_must_be_a_positive_number() -> None:
    with pytest.raises(UsageError, match=r"training: table_rate must be above 0, got 0\.0; 1 is the rate of all other weights"):
        Schedule(table_rate=0.0)
