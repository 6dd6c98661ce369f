"""Reading a user's ONNX file: what is wrong with it, and what goes in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetk.core.errors import InputError, PostconditionError
from edgetk.core.signature import Signature, StateSpec, TensorSpec
from edgetk.export import graph as graphs
from edgetk.export import metadata


def model(
    opset: int = 17, kind: str = "Add", outputs: tuple[str, ...] = ("y", "state_h_out"), shape: Any = ("batch", 3)
) -> Any:
    def value(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [helper.make_node(kind, ["x", "w"], [outputs[0]]), helper.make_node("Add", ["state_h", "x"], [outputs[1]])]
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    graph = helper.make_graph(nodes, "g", [value("x"), value("state_h")], [value(n) for n in outputs], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def write(path: Path, content: Any) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def test_reads_a_good_file(tmp_path: Path) -> None:
    read = graphs.load(write(tmp_path / "a.onnx", model()))
    assert graphs.opset_of(read) == 17
    assert graphs.precision_of(read) == "float32"


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.onnx: must be an ONNX file, got no such file; check the path"):
        graphs.load(tmp_path / "a.onnx")
    with pytest.raises(InputError, match="must be an ONNX file, got a folder"):
        graphs.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "must be an ONNX graph, got an empty file"),
        (b"RIFF....WAVEfmt this is no graph", "must be an ONNX graph, got 32 bytes that do not parse"),
        (model().SerializeToString()[:-40], "must be an ONNX graph, got .* bytes that do not parse .truncated"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "must be an ONNX graph, got a file without nodes"),
        (model(opset=6), "must use operator set 7 to 28, got 6; export it again"),
        (model(opset=99), "must use operator set 7 to 28, got 99"),
        (model(kind="Addd"), "must pass the ONNX checker, got: .*Addd"),
    ],
)
def test_defects_get_one_sentence(tmp_path: Path, content: Any, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        graphs.load(write(tmp_path / "a.onnx", content))
    assert "\n" not in str(caught.value)


def external(location: str) -> Any:
    whole = model()
    tensor = whole.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", "0"), ("length", "12")):
        tensor.external_data.add(key=key, value=text)
    return whole


def test_external_data_of_the_own_folder_is_read(tmp_path: Path) -> None:
    write(tmp_path / "w.bin", np.full(3, 2, np.float32).tobytes())
    read = graphs.load(write(tmp_path / "a.onnx", external("w.bin")))
    assert numpy_helper.to_array(read.graph.initializer[0]).tolist() == [2.0, 2.0, 2.0]
    assert not read.graph.initializer[0].external_data


def test_external_data_elsewhere_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    write(tmp_path / "w.bin", bytes(12))
    (tmp_path / "inner" / "link.bin").symlink_to(tmp_path / "w.bin")
    for location in ("../w.bin", str(tmp_path / "w.bin"), "link.bin", ""):
        with pytest.raises(InputError, match="external data of w must lie in the model's folder, got"):
            graphs.load(write(tmp_path / "inner" / "a.onnx", external(location)))


def test_external_data_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", external("w.bin"))
    with pytest.raises(InputError, match=r"external data of w must exist, got no file 'w\.bin'; copy it beside it"):
        graphs.load(path)
    write(tmp_path / "w.bin", bytes(4))
    with pytest.raises(InputError, match=r"external data of w must be readable, got: .*save the model as one file"):
        graphs.load(path)


def test_states_are_known_by_their_names() -> None:
    signature = graphs.signature_of(model())
    assert signature.input_names == ("x", "state_h")
    assert signature.output_names == ("y", "state_h_out")
    assert signature.state == (StateSpec(TensorSpec("state_h", ("batch", 3))),)
    with pytest.raises(InputError, match="state_h: a state input must have an output state_h_out, got none"):
        graphs.signature_of(model(outputs=("y", "other")))
    with pytest.raises(InputError, match="x: must be a tensor of known rank, got none"):
        graphs.signature_of(model(shape=None))


def test_metadata_goes_before_names() -> None:
    known = Signature(
        (TensorSpec("x", ("batch", 3), axes="B C"),),
        (TensorSpec("y", ("batch", 3)),),
        (StateSpec(TensorSpec("state_h", ("batch", 3)), (1.0, 2.0, 3.0)),),
        period_s=0.01,
        lookahead_s=0.05,
    )
    import json

    described = metadata.write(model(), {"signature": json.dumps(known.to_json())})
    assert graphs.signature_of(described) == known
    with pytest.raises(InputError, match="metadata signature: must be what edgetk wrote, got text that does not parse"):
        graphs.signature_of(metadata.write(model(), {"signature": "{"}))
    other = metadata.write(model(outputs=("z", "state_h_out")), {"signature": json.dumps(known.to_json())})
    with pytest.raises(
        InputError, match=r"metadata signature: must match the graph, got outputs \['z', 'state_h_out'\] instead"
    ):
        graphs.signature_of(other)


def test_interface_is_checked_by_name_order_shape_and_type() -> None:
    good = graphs.signature_of(model())
    graphs.io_contract(model(), good)
    spec = TensorSpec("x", ("batch", 4))
    with pytest.raises(PostconditionError, match=r"got x float32\['batch', 3\] instead of float32\['batch', 4\]"):
        graphs.io_contract(model(), Signature((spec,), good.outputs, good.state))
    with pytest.raises(PostconditionError, match=r"must keep the signature, got inputs \['x', 'state_h'\] instead of"):
        graphs.io_contract(model(), Signature(good.inputs, good.outputs))
