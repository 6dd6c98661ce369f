"""Whatever a user gets wrong, through the command line: one sentence, the right code, nothing half done."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from said import sentence, sound, tone

from edgetk.toolkit.source import WEIGHTS

HEAD = 'schema_version = 1\nname = "mine"\nmodel = "ds-cnn"\ntargets = ["raspberry-pi-4"]\n'


# names, keys and values


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('targest = ["host"]', "recipe mine: a key must be one of the recipe's, got 'targest'; did you mean targets"),
        ("[goals]\nmax_dorp = 0.1", "recipe mine: goals: a setting must be one it has, got 'max_dorp'; did you mean max_drop"),
        ('[[passes]]\nname = "quantise"', "recipe mine: pass 'quantise': no such pass; did you mean quantize?"),
        ('[[passes]]\nname = "prune"\nkeap = {}', "prune: a setting must be one it has, got 'keap'; did you mean keep"),
        ('[[passes]]\nname = "prune"\nmax_drop = 7', "prune: max_drop must be in [0, 1], got 7.0; correct the recipe"),
        ('[[passes]]\nname = "prune"\nmax_drop = "7"', "prune: max_drop must be a number, got '7'; correct it"),
        (
            '[[passes]]\nname = "quantize"\nactivation = "int4"',
            "quantize: activation must be auto, uint8 or int8, got 'int4'; corr",
        ),
        ("[goals]\nmin_top1 = 97", "goals: min_top1 must be in [0, 1], got 97.0; 0.01 is one point"),
        (
            "[goals]\nmax_size_bytes = -1",
            "goals: max_size_bytes must be above 0, got -1; give seconds or bytes, or leave it out",
        ),
        ('exports = ["onx"]', "exporter 'onx': no such exporter; did you mean onnx?"),
        ("seed = -1", "recipe mine: seed must be in [0, 2³²), got -1; choose another"),
        ('labels = "yes"', "recipe mine: labels must be a list of a text, got 'yes'; correct it"),
    ],
)
def test_recipes(edgetk, here, text, wanted):
    (here / "mine.toml").write_text(HEAD + text)
    done = edgetk("compress", "--recipe", "mine.toml", "-o", "runs")
    assert wanted in sentence(done)
    assert done.exit_code == 2
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["compress", "--model", "ds-cn"], "model 'ds-cn': no such model; did you mean ds-cnn?"),
        (["compress", "--model", "ds-cnn-xl"], "model 'ds-cnn-xl': ds-cnn has no variant 'xl'; did you mean ds-cnn?"),
        (["compress", "--model", "ds-cnn", "--target", "jetsn"], "must be the name of a board"),
        (["train", "--model", "ds-cn", "-o", "x"], "model 'ds-cn': no such model; did you mean ds-cnn?"),
        (["train", "--model", "ds-cnn", "-o", "x", "--recipe", "papr"], "no such recipe; did you mean paper?"),
        (["evaluate", "ds-cnn", "--split", "dev"], "a split must be one of train, validation, test, got 'dev'; correct it"),
        (["evaluate", "ds-cnn", "--wav", "a.wav", "--data", "."], "--wav and --data must not stand together, got both; leave"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_commands(edgetk, here, arguments, wanted):
    done = edgetk(*arguments)
    assert wanted in sentence(done)
    assert done.exit_code == 2
    assert list(here.iterdir()) == []


# files


def graph() -> bytes:
    """One small layer for the task's features."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 128, 128]) for n in ("x", "y")]
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    made = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    content: bytes = made.SerializeToString()
    assert onnx.load_model_from_string(content)
    return content


@pytest.mark.parametrize("command", [["evaluate"], ["inspect"], ["compress", "-o", "runs", "--model"]], ids=lambda c: c[0])
@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("x.onnx", lambda: graph()[:-7], "x.onnx: must be an ONNX graph, got "),
        ("x.onnx", lambda: (WEIGHTS / "ds-cnn.safetensors").read_bytes(), "x.onnx: must be an ONNX graph, got "),
        ("x.safetensors", lambda: (WEIGHTS / "ds-cnn.safetensors").read_bytes()[:-7], "x.safetensors: must be a whole"),
        ("x.safetensors", graph, "x.safetensors: must be a whole safetensors file of"),
    ],
    ids=["truncated onnx", "safetensors as onnx", "truncated safetensors", "onnx as safetensors"],
)  # fmt: skip
def test_model_files(edgetk, here, command, name, content, wanted):
    (here / name).write_bytes(content())
    done = edgetk(*command, name)
    assert wanted in sentence(done)
    assert done.exit_code == 1
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda p: sound(p, tone(channels=2)), "must be mono, got 2 channels; mix it down first"),
        (lambda p: sound(p, tone(), 44100), "must be sampled at 16000 Hz, got 44100 Hz; resample it first"),
        (lambda p: sound(p, tone(0)), "must hold sound, got 0 samples; record it again"),
        (lambda p: p.write_bytes(b""), "must be a sound file, got an empty file; record it again"),
        (
            lambda p: sound(p, tone() * np.float32("nan")),
            "must hold finite samples, got 16000 that are NaN or infinite; export",
        ),
        (lambda p: p.write_bytes(b"yes " * 1000), "must be a sound file that libsndfile reads, got: "),
        (lambda p: (sound(p, tone()), p.write_bytes(p.read_bytes()[:9000])), "must be complete, got a truncated file; copy it"),
        (lambda p: sound(p, tone(20000)), "must last at most 1 s, got 1.25 s; cut it, or feed it to the step form as a stream"),
        (lambda p: None, "must be a sound file, got no such file; check the path"),
        (lambda p: p.mkdir(), "must be a sound file, got a folder; check the path"),
    ],
    ids=["stereo", "44.1 kHz", "no samples", "empty", "NaN", "not audio", "truncated", "too long", "missing", "folder"],
)
def test_recordings(edgetk, here, make, wanted):
    make(here / "x.wav")
    done = edgetk("evaluate", "ds-cnn", "--wav", "x.wav")
    assert sentence(done).startswith(f"x.wav: {wanted}")
    assert done.exit_code == 1


# a user's own module

NETS = """
import torch
from torch import nn

class Odd(nn.Module):
    example = torch.zeros(2, 128, 128)
    def __init__(self, how):
        super().__init__()
        self.how = how
    def forward(self, x):
        return {"crash": lambda: x.reshape(7, -1), "flat": lambda: x.sum(), "nan": lambda: x[:, 0, :16] / 0,
                "rows": lambda: x[:, :, :16].flatten(0, 1), "three": lambda: x[:, 0, :3]}[self.how]()

def crash(): return Odd("crash")
def flat(): return Odd("flat")
def nan(): return Odd("nan")
def rows(): return Odd("rows")
def three(): return Odd("three")
def small():
    net = nn.Linear(4, 16)
    net.example = torch.zeros(1, 4)
    return net
"""
SHAPE = (
    "model small: inputs must have the shape of the task's features (N, 128, 128), got a model for (N, 4); change the model's"
)


@pytest.mark.parametrize(
    ("command", "function", "wanted"),
    [
        ("evaluate", "small", SHAPE),
        ("wav", "small", SHAPE),
        ("compress", "small", SHAPE),
        ("compress", "crash", "forward must accept its example of shape (2, 128, 128), got RuntimeError: shape '[7, -1]' is"),
        ("compress", "flat", "forward must give one tensor of class scores (batch, classes), got shape (); return a Bundle"),
        ("compress", "nan", "clip output output must be finite, got NaN or infinity; look for a division by zero"),
        ("compress", "rows", "clip output output must have shape (batch, 16), got (256, 16); make the signature"),
        ("compress", "three", "must have one output per label, got 3 outputs and 16 labels (zero, one, two, three, "),
        ("evaluate", "three", "predict must return one row of class scores per clip, got (64, 3) for 64 clips; correct"),
    ],
)  # fmt: skip
def test_modules_of_the_wrong_shape(edgetk, here, command, function, wanted):
    (here / "users_odd.py").write_text(NETS)
    sound(here / "x.wav", tone())
    model, task = f"users_odd:{function}", ("--task", "speech-commands")
    calls = {
        "evaluate": ("evaluate", model, *task),
        "wav": ("evaluate", model, *task, "--wav", "x.wav"),
        "compress": ("compress", "--model", model, *task, "--recipe", "export", "-o", "runs"),
    }
    done = edgetk(*calls[command])
    assert wanted in sentence(done)
    assert done.exit_code == 1
    assert not (here / "runs").exists()


def test_an_answer_with_too_few_scores(edgetk, here):
    made = onnx.load_model_from_string(graph())
    made.metadata_props.add(key="task", value="speech-commands")
    made.metadata_props.add(key="labels", value="yes\nno")
    onnx.save(made, "x.onnx")
    sound(here / "x.wav", tone())
    done = edgetk("evaluate", "x.onnx", "--wav", "x.wav")
    assert sentence(done) == (
        "model x: must give one finite score per class of one example (1, 2), got (1, 128, 128); correct the model's output"
    )
    assert done.exit_code == 1
