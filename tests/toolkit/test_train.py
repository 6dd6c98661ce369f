"""Training end to end on a few clips: files, cards, interruption, teachers, a user's own model, and every refusal."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import words
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from edgetk.core.errors import EdgetkError, InputError, UsageError
from edgetk.core.figures import Score
from edgetk.tasks.speech.augment import Augment
from edgetk.tasks.speech_commands import TASK
from edgetk.tasks.training.loop import Training
from edgetk.toolkit import train as training
from edgetk.toolkit.cli import app
from edgetk.toolkit.evaluate import evaluate, predictor
from edgetk.toolkit.source import is_untrained, open_model
from edgetk.toolkit.train import Options, train
from edgetk.toolkit.training_recipe import TrainingRecipe, read

RECIPE = read("paper").with_schedule(epochs=4, batch=6, seed=1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return words.make(tmp_path_factory.mktemp("data") / "words", noise=True)


@pytest.fixture(autouse=True)
def _count_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lowering takes seconds."""
    monkeypatch.setattr("edgetk.toolkit.card.macs", lambda bundle: {"missing": "not counted here"})


class Listener:
    """Keeps what is logged and how far tasks came; `stop_after` raises Ctrl-C after so many epochs."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.lines: list[str] = []
        self.notes: list[str] = []
        self.stop_after = stop_after

    def log(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def task(self, what: str, total: float | None = None) -> Iterator[Listener]:
        yield self

    def advance(self, n: float = 1, note: str = "") -> None:
        if note:
            self.notes.append(note)
            if len(self.notes) == self.stop_after:
                raise KeyboardInterrupt


def options(folder: Path, output: Path, recipe: TrainingRecipe = RECIPE, **changes: object) -> Options:
    given = {"model": "lmuformer-xs", "output": output, "data": folder, "recipe": recipe, "device": "cpu", **changes}
    return Options(**given)  # type: ignore[arg-type]


def test_weights_and_card(folder: Path, tmp_path: Path) -> None:
    listener = Listener()
    card = train(options(folder, tmp_path / "out" / "yes-no.safetensors"), listener)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["yes-no.json", "yes-no.safetensors"]
    content = (tmp_path / "out" / "yes-no.safetensors").read_bytes()
    assert json.loads((tmp_path / "out" / "yes-no.json").read_text()) == json.loads(json.dumps(card))
    assert card["weights"] == {
        "file": "yes-no.safetensors",
        "sha256": sha256(content).hexdigest(),
        "size_bytes": len(content),
    }
    assert card["labels"] == ["no", "yes"]
    assert (card["data"]["train"], card["data"]["validation"], card["data"]["test"]) == (12, 4, 4)
    assert card["recipe"] == RECIPE.to_json()
    about = card["training"]
    assert (about["seed"], len(about["loss"]), len(about["validation_correct"])) == (1, 4, 4)
    assert about["validation_correct"][about["best_epoch"] - 1] == max(about["validation_correct"])
    assert len(listener.notes) == 4
    assert "loss" in listener.notes[0]
    assert "validation" in listener.notes[0]

    bundle = open_model(str(tmp_path / "out" / "yes-no.safetensors"))
    assert not is_untrained(bundle)
    assert (bundle.name, bundle.task, bundle.labels) == ("lmuformer-xs", "speech-commands", ("no", "yes"))
    score = evaluate(predictor(bundle), "speech-commands", TASK.open(folder), "test")
    assert card["accuracy"]["test"]["correct"] == score.correct
    assert card["accuracy"]["test"]["ci95"] == list(Score(score.correct, 4).ci95)
    assert card["accuracy"]["validation"]["correct"] == max(about["validation_correct"])


def test_training_learns(folder: Path, tmp_path: Path) -> None:
    recipe = read("paper").with_augmentation("none").with_schedule(epochs=15, batch=12)
    losses = train(options(folder, tmp_path, recipe, model="ds-cnn"))["training"]["loss"]
    assert losses[-1] < 0.5 * losses[0]


def test_a_folder_as_output_and_half_precision(folder: Path, tmp_path: Path) -> None:
    card = train(options(folder, tmp_path, store="float16"))
    stored = load_file(tmp_path / "lmuformer-xs.safetensors")
    assert {value.dtype for value in stored.values() if value.is_floating_point()} == {torch.float16}
    score = evaluate(
        predictor(open_model(str(tmp_path / "lmuformer-xs.safetensors"))), "speech-commands", TASK.open(folder), "test"
    )
    assert card["accuracy"]["test"]["correct"] == score.correct


@pytest.mark.parametrize("name", ["paper", "robust"])
def test_resumed_run_ends_with_the_same_weights(folder: Path, tmp_path: Path, name: str) -> None:
    recipe = read(name).with_schedule(epochs=4, batch=6)
    whole = train(options(folder, tmp_path / "whole", recipe))
    listener = Listener(stop_after=3)
    kept = tmp_path / "broken" / "lmuformer-xs.training"
    with pytest.raises(KeyboardInterrupt):
        train(options(folder, tmp_path / "broken", recipe, snapshot_every=2), listener)
    assert listener.lines == [f"train: interrupted; 2 of 4 epochs are kept in {kept}, --resume goes on from there"]
    assert (kept / "snapshot.safetensors").is_file()
    torch.manual_seed(123)
    (tmp_path / "broken" / "lmuformer-xs.safetensors").write_bytes(b"written, but the card was not")
    again = Listener()
    resumed = train(options(folder, tmp_path / "broken", recipe, snapshot_every=2, resume=True), again)
    assert again.lines == ["resumed after epoch 2"]
    assert len(again.notes) == 2
    assert resumed["weights"]["sha256"] == whole["weights"]["sha256"]
    assert resumed["training"]["loss"] == whole["training"]["loss"]
    assert resumed["training"]["identity"] == whole["training"]["identity"]
    assert not kept.exists()
    finished = Listener()
    assert train(options(folder, tmp_path / "broken", recipe, resume=True), finished) == json.loads(json.dumps(resumed))
    assert "was finished before: nothing to do" in finished.lines[0]


def test_interrupted_before_the_first_snapshot_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    listener = Listener(stop_after=1)
    with pytest.raises(KeyboardInterrupt):
        train(options(folder, tmp_path / "out"), listener)
    assert listener.lines == ["train: interrupted; 0 of 4 epochs are finished, there is nothing to keep"]
    assert list((tmp_path / "out").iterdir()) == []
    again = Listener()
    train(options(folder, tmp_path / "out", resume=True), again)
    assert again.lines == ["nothing to resume: starting afresh"]


def test_slow_epochs_are_kept_before_their_number_is_reached(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SNAPSHOT_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train(options(folder, tmp_path, snapshot_every=100), Listener(stop_after=3))
    assert (tmp_path / "lmuformer-xs.training" / "snapshot.safetensors").is_file()


def test_an_unfinished_run_is_neither_replaced_nor_continued_with_other_settings(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(options(folder, tmp_path, snapshot_every=1), Listener(stop_after=3))
    with pytest.raises(UsageError, match=r"must not replace an unfinished one, got one with 2 finished epochs in .*--resume"):
        train(options(folder, tmp_path))
    other = RECIPE.with_schedule(lr=0.1)
    with pytest.raises(UsageError, match=r"same settings, got recipe.schedule.lr = 0.1 instead of 0.0025; repeat the first"):
        train(options(folder, tmp_path, other, resume=True))
    kept = tmp_path / "lmuformer-xs.training" / "snapshot.safetensors"
    kept.write_bytes(kept.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"snapshot.safetensors must be a whole snapshot of a run, got: .*; remove .*again"):
        train(options(folder, tmp_path, resume=True))
    save_file({"x": torch.zeros(1)}, kept)
    with pytest.raises(InputError, match=r"must be a whole snapshot of a run, got: "):
        train(options(folder, tmp_path, resume=True))
    assert kept.is_file()


def test_finished_weights_are_not_overwritten(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"precious")
    text = r"a.safetensors must be a new file, got one that exists; choose another --output or remove it"
    for resume in (False, True):
        with pytest.raises(UsageError, match=text):
            train(options(folder, tmp_path / "a.safetensors", resume=resume))
    assert (tmp_path / "a.safetensors").read_bytes() == b"precious"


def test_teacher(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(options(folder, tmp_path / "teacher.safetensors", model="ds-cnn"))
    seen: list[torch.nn.Module | None] = []
    plain = Training.__init__

    def spy(self: Training, *arguments: object) -> None:
        seen.append(arguments[5])  # type: ignore[arg-type]
        plain(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Training, "__init__", spy)
    recipe = RECIPE.with_schedule(distill=0.5)
    teacher = str(tmp_path / "teacher.safetensors")
    taught = train(options(folder, tmp_path / "student", recipe, teacher=teacher))
    alone = train(options(folder, tmp_path / "alone"))
    assert taught["training"]["teacher"] == teacher
    assert taught["training"]["loss"] != alone["training"]["loss"]
    assert [type(module).__name__ for module in seen] == ["DSCNN", "NoneType"]
    with pytest.raises(UsageError, match=r"train: distill = 0.5 needs a teacher, got none; add --teacher or leave it out"):
        train(options(folder, tmp_path / "none", recipe))
    with pytest.raises(InputError, match=r"labels must be those it was trained for \(zero, one, two, three, … 16 in all\)"):
        train(options(folder, tmp_path / "other", recipe, teacher="lmuformer-xs"))
    assert list((tmp_path / "other").iterdir()) == []


def test_an_untrained_teacher_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetk.toolkit.source.WEIGHTS", tmp_path)
    text = r"train: the teacher must be a trained torch model for whole inputs, got ds-cnn; choose another"
    with pytest.raises(InputError, match=text):
        train(options(folder, tmp_path / "out", RECIPE.with_schedule(distill=0.5), teacher="ds-cnn"))


def test_trained_further_from_a_file(folder: Path, tmp_path: Path) -> None:
    first = train(options(folder, tmp_path / "a.safetensors"))
    still = RECIPE.with_schedule(epochs=1, lr=1e-12)
    train(options(folder, tmp_path / "b.safetensors", still, model=str(tmp_path / "a.safetensors")))
    a, b = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors")
    assert torch.allclose(a["head.weight"], b["head.weight"], atol=1e-6)
    assert first["training"]["loss"]


def test_random_weights_follow_from_the_seed_even_where_weights_ship() -> None:
    one, same = (open_model("ds-cnn", labels=("a", "b"), trained=False) for _ in range(2))
    assert is_untrained(one)
    assert one.labels == ("a", "b")
    assert not torch.equal(one.module.head.weight, same.module.head.weight)  # nobody seeded


USERS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, outputs, frames=128):
        super().__init__()
        self.head = nn.Linear(128, outputs)
        self.example = torch.zeros(1, frames, 128)

    def forward(self, x):
        return self.head(x.mean(dim=1))

def make():
    return Net(2)

def three():
    return Net(3)

def short():
    return Net(2, frames=64)
"""


def test_a_users_own_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users_nets.py").write_text(USERS)
    card = train(options(folder, tmp_path / "own.safetensors", model="users_nets:make"))
    assert card["parameters"] == 258
    assert card["source"] == {"function": "users_nets:make"}
    with pytest.raises(InputError, match=r"must have one output per label, got 3 outputs and 2 labels"):
        train(options(folder, tmp_path / "three", model="users_nets:three"))
    with pytest.raises(InputError, match=r"train: inputs must have the shape of the task's features \(N, 128, 128\)"):
        train(options(folder, tmp_path / "short", model="users_nets:short"))


# what is refused


def test_the_embedded_sample_has_nothing_to_train_on(tmp_path: Path) -> None:
    text = r"training needs a train split, got only validation, test in .*embedded; edgetk data says where to get one"
    with pytest.raises(InputError, match=text):
        train(Options("lmuformer-xs", tmp_path / "out", recipe=RECIPE, device="cpu"))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"train": 6, "test": 0}, r"must hold the split test, got only train, validation; add clips of more speakers"),
        ({"train": 6, "validation": 0}, r"must hold the split validation, got only train, test; add clips of more speakers"),
        ({"train": 2}, r"training: needs at least one batch of 6 clips, got 4; use a smaller batch"),
    ],
)
def test_too_few_clips(tmp_path: Path, given: dict[str, int], text: str) -> None:
    folder = words.make(tmp_path / "few", **given)
    with pytest.raises(InputError, match=text):
        train(options(folder, tmp_path / "out"))


def test_a_label_without_training_clips(tmp_path: Path) -> None:
    folder = words.make(tmp_path / "words")
    for path in (folder / "yes").iterdir():
        if any(path.name.startswith(f"{name}_") for name in words.speakers("train", 6)):
            path.unlink()
    with pytest.raises(InputError, match=r"every label needs training clips, got none of yes; add clips of more speakers"):
        train(options(folder, tmp_path / "out"))


def test_noise_needs_recordings(tmp_path: Path) -> None:
    folder = words.make(tmp_path / "quiet")
    with pytest.raises(InputError, match=r"must hold background noise, got none; add _background_noise_ or choose"):
        train(options(folder, tmp_path / "out", read("robust").with_schedule(epochs=1, batch=6)))


def test_refused_options(folder: Path, tmp_path: Path, plugins: None) -> None:
    def refuse(text: str, **changes: object) -> None:
        with pytest.raises(EdgetkError, match=text):
            train(options(folder, tmp_path / "out", **changes))

    refuse(r"model 'lmuformer-x': lmuformer has no variant 'x'; did you mean lmuformer-xs", model="lmuformer-x")
    refuse(r"train: m.onnx must be a torch model, got an ONNX graph; train what it was exported from", model="m.onnx")
    refuse(r"train: the device must be auto, cpu or cuda, got 'tpu'; correct it", device="tpu")
    refuse(
        r"train: the recipe must be for the task speech-commands, got images, which is for cifar10; choose --recipe",
        recipe=read("images"),
    )
    refuse(r"train: the task tiny must give batches to train on, got none; choose another --task", task="tiny", data=None)
    if not torch.cuda.is_available():
        refuse(r"train: the device cuda needs a GPU that torch can use, got none; use --device cpu", device="cuda")


def test_a_diverging_loss_is_an_error(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Augment.forward
    monkeypatch.setattr(Augment, "forward", lambda self, rows: (plain(self, rows)[0] * float("nan"), plain(self, rows)[1]))
    with pytest.raises(EdgetkError, match=r"train: the loss must stay finite, got nan in epoch 1; lower --lr"):
        train(options(folder, tmp_path))


def test_a_model_without_a_whole_input_form(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stream_only(*arguments: object, **named: object) -> object:
        return replace(open_model(*arguments, **named), clip=None)  # type: ignore[arg-type]

    monkeypatch.setattr("edgetk.toolkit.train.source.open_model", stream_only)
    with pytest.raises(InputError, match=r"lmuformer-xs must have a form for whole inputs, got only the stream form"):
        train(options(folder, tmp_path / "out"))


LEAN = """
import sys
for name in ("brevitas", "jinja2", "netron", "onnx", "onnxruntime", "onnxscript", "rich", "typer"):
    sys.modules[name] = None
from pathlib import Path
from edgetk.toolkit.train import Options, train
from edgetk.toolkit.training_recipe import read
recipe = read("paper").with_schedule(epochs=1, batch=6)
card = train(Options("lmuformer-xs", Path(sys.argv[2]), data=Path(sys.argv[1]), recipe=recipe, device="cpu"))
print(card["macs"])
"""


def test_a_machine_that_only_trains_needs_few_packages(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LEAN, str(folder), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{'missing': ")
    assert (tmp_path / "out" / "lmuformer-xs.safetensors").is_file()


# batches


def test_batches_of_speech_data(folder: Path) -> None:
    data = TASK.open(folder)
    batches, rows = data.batches("cpu")
    features, targets = batches(torch.arange(rows))
    split = data.split("train")
    assert torch.equal(features, split.features)
    assert torch.equal(targets.argmax(1), split.labels)
    assert rows == 12


# the command


def call(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(a) for a in ("-q", "train", *arguments)], prog_name="edgetk")
    return done.exit_code, done.stdout, done.stderr


def test_command(folder: Path, tmp_path: Path) -> None:
    plain = ("-m", "ds-cnn", "--data", folder, "--epochs", 1, "--batch", 6, "--device", "cpu", "--labels", "yes, no")
    code, out, err = call(*plain, "--lr", "1e-3", "--seed", 7, "--augment", "none", "--json", "-o", tmp_path / "a")
    assert (code, err) == (0, "")
    card = json.loads(out)
    assert card["labels"] == ["yes", "no"]
    schedule = card["recipe"]["schedule"]
    assert (schedule["epochs"], schedule["batch"], schedule["lr"], schedule["seed"]) == (1, 6, 1e-3, 7)
    assert card["recipe"]["augmentation"]["mixup"] == 0.0
    teacher = tmp_path / "a" / "ds-cnn.safetensors"
    code, out, err = call(*plain, "--shape", "cosine", "--average", 0.9, "--teacher", teacher, "-o", tmp_path / "b.safetensors")
    assert (code, err) == (0, "")
    assert "(n=4, 95 % interval" in out
    assert f"weights: {tmp_path / 'b.safetensors'}" in out
    schedule = json.loads((tmp_path / "b.json").read_text())["recipe"]["schedule"]
    assert (schedule["shape"], schedule["average"], schedule["distill"]) == ("cosine", 0.9, 0.5)


def test_command_refuses_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    code, out, err = call("-m", "ds-cnn", "--data", folder, "--labels", "yes,nope", "-o", tmp_path / "a")
    assert (code, out) == (2, "")
    assert err == "speech-commands: labels must be words of the data, got 'nope'; did you mean no?\n"
    code, _, err = call("-m", "ds-cnn", "--data", folder, "--labels", "12", "-o", tmp_path / "a")
    assert code == 2
    assert err == "speech-commands: labels must be words of the data, got 'up'; known: no, yes\n"


def test_command_says_how_to_go_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgetk.toolkit.train._run", interrupted)
    code, _, err = call("-m", "ds-cnn", "--data", folder, "--batch", 6, "--device", "cpu", "-o", tmp_path / "a")
    assert code == 130
    assert "--resume goes on from there" in err
