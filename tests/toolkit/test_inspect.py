"""`inspect`: the numbers of a graph that can be checked by hand, and what a zoo model shows of both its forms."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from edgetk.toolkit import inspect
from edgetk.toolkit.cli import app
from edgetk.toolkit.commands import shared


@pytest.fixture(autouse=True)
def _settings():
    yield
    shared.settings = shared.Settings()


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="edgetk")


def write(path: Path, state: bool = False, metadata: dict[str, str] | None = None, wide: int = 8) -> Path:
    """y = relu(x W) with W (4, `wide`); with `state`, the state of 4 numbers is added to x and x + state carried on."""
    weight = numpy_helper.from_array(np.ones((4, wide), np.float32), "w")
    nodes = [helper.make_node("MatMul", ["s" if state else "x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, wide])]
    if state:
        nodes.insert(0, helper.make_node("Add", ["x", "state_sum"], ["s"]))
        nodes.append(helper.make_node("Identity", ["s"], ["state_sum_out"]))
        inputs.append(helper.make_tensor_value_info("state_sum", TensorProto.FLOAT, [1, 4]))
        outputs.append(helper.make_tensor_value_info("state_sum_out", TensorProto.FLOAT, [1, 4]))
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def test_a_graph_is_counted_as_by_hand(tmp_path):
    path = write(tmp_path / "m.onnx")
    found = inspect.examine(str(path))
    (form,) = found["forms"]
    assert (form["form"], form["precision"], form["opset"], form["ir_version"]) == ("clip", "float32", 17, 8)
    assert form["macs"] == 4 * 8
    assert form["parameters"] == 4 * 8
    assert form["weight_bytes"] == 4 * 4 * 8
    assert form["operators"] == {"MatMul": 1, "Relu": 1}
    assert form["size_bytes"] == path.stat().st_size
    assert form["conversions"] == 0
    json.dumps(found, allow_nan=False)


def test_states_of_a_step_graph_are_found(tmp_path):
    path = write(tmp_path / "m.onnx", state=True, metadata={"author": "somebody"})
    (form,) = inspect.examine(str(path))["forms"]
    assert form["form"] == "stream"
    assert form["state_bytes"] == 16
    assert [s["name"] for s in form["signature"]["state"]] == ["state_sum"]
    done = call("inspect", path, "--target", "host")
    assert "stream form, float32, opset 17, IR 8" in done.stdout
    assert "16 B: state_sum float32[1, 4]" in done.stdout
    assert "author       somebody" in done.stdout


def test_only_the_named_boards_are_shown(tmp_path):
    path = write(tmp_path / "m.onnx")
    (form,) = inspect.examine(str(path), ("jetson", "raspberry-pi-5"))["forms"]
    assert [row["target"] for row in form["targets"]] == ["jetson-orin-nano-8g", "jetson-orin-nano-8g:cpu", "raspberry-pi-5"]
    assert {f["kind"] for row in form["targets"] for f in row["figures"]} <= {"predicted", "missing"}


def test_every_figure_in_the_table_has_its_method_below_it(tmp_path):
    """The graph is float32: what was calibrated with int8 does not hold for it."""
    path = write(tmp_path / "m.onnx")
    lines = [x.strip() for x in call("inspect", path, "-t", "stm32h7a3", "-t", "raspberry-pi-4").stdout.splitlines()]
    assert lines[-3:] == [
        "flash, ram by memory plan, unvalidated: stm32h7a3, raspberry-pi-4",
        "latency by roofline, unvalidated: stm32h7a3, raspberry-pi-4",
        "energy by board energy, unvalidated: stm32h7a3, raspberry-pi-4",
    ]
    assert re.search(r"^  energy by board energy, unvalidated: the other \d\d boards$", call("inspect", path).stdout, re.M)


def test_a_stream_shows_what_a_board_that_is_always_on_draws():
    path = Path(__file__).parents[1] / "data" / "lmuformer_xs_int8_stream.onnx"
    text = " ".join(call("inspect", path, "-t", "stm32h7a3").stdout.split())
    assert "duty cycle average power slowest clock" in text
    assert "latency, duty cycle, slowest clock by roofline, calibrated on X-CUBE-AI 9.0 on STM32H7A3" in text
    assert "average power by board energy, unvalidated: stm32h7a3" in text
    assert " MHz " in text  # the slowest clock that keeps up


def test_what_does_not_fit_says_why(tmp_path):
    path = write(tmp_path / "m.onnx", wide=1_000_000)  # 16 MB of weights, the board has 2 MB of flash
    (form,) = inspect.examine(str(path), ("stm32h7a3",))["forms"]
    assert form["targets"][0]["fits"] is False
    done = call("inspect", path, "-t", "stm32h7a3")
    assert "no: needs 16 MB of flash" in done.stdout
    assert "— on stm32h7a3: does not fit" in done.stdout


def test_a_zoo_model_shows_both_forms_with_look_ahead():
    done = call("inspect", "lmuformer-xs", "--json", "--quiet", "-t", "host")
    found = json.loads(done.stdout)
    clip, stream = found["forms"]
    assert (clip["form"], stream["form"]) == ("clip", "stream")
    assert stream["signature"]["lookahead_s"] == 0.05
    assert stream["state_bytes"] > 0
    assert clip["macs"] > 50 * stream["macs"]
    assert found["task"] == "speech-commands"


@pytest.mark.parametrize(("content", "text"), [(None, "m.onnx"), (b"", "m.onnx"), (b"\x00garbage", "m.onnx")])
def test_wrong_files_are_refused(tmp_path, content, text):
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    done = call("inspect", path, "--quiet")
    assert done.exit_code == 1
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_truncated_file_is_refused(tmp_path):
    path = write(tmp_path / "m.onnx", wide=100)
    path.write_bytes(path.read_bytes()[:-40])
    done = call("inspect", path, "--quiet")
    assert done.exit_code == 1
    assert str(path) in done.stderr
