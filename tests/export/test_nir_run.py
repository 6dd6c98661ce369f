"""NIR graphs by hand: how nodes are written, how they run, when sums are exact, and what is refused."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest
import torch
from torch import nn

from edgetk.core.errors import InputError, PreconditionError
from edgetk.export import _nir_graph, nir_run
from edgetk.export._nir_exact import sums_are_exact
from edgetk.models.layers.lif import LIF
from edgetk.models.layers.quantized import LowRank
from edgetk.models.layers.spiking_graph import INPUT, Delay, Neurons, Product, Scale, SpikingGraph, Wiring

DT = 0.01


def spiking(*nodes: tuple[str, Any], edges: tuple[tuple[str, str], ...], width: int = 1, output: str = "") -> SpikingGraph:
    return SpikingGraph(width, dict(nodes), edges, output or nodes[-1][0], (), nn.Identity(), ())


def run(graph: SpikingGraph, x: list[list[float]]) -> nir_run.Run:
    """Through a file: x (T, F)."""
    read = _nir_graph.from_bytes(_nir_graph.to_bytes(_nir_graph.build(graph, DT, {"dt": DT})))
    return nir_run.simulate(read, np.array([x], np.float32))


def test_a_neuron_by_hand() -> None:
    neurons = Neurons(torch.tensor([1.0]), torch.tensor([-0.5]), 0.5, "lif")
    graph = spiking(("lif", neurons), edges=((INPUT, "lif"),))
    node = _nir_graph.build(graph, DT, {}).nodes["lif"]
    assert (node.tau.tolist(), node.r.tolist(), node.v_leak.tolist()) == ([0.02], [1.0], [0.0])
    assert (node.v_reset.tolist(), node.metadata) == ([-0.5], {"module": "lif"})
    assert node.v_threshold.dtype == np.float32
    assert node.v_threshold[0] == np.float32(1) - np.float32(2**-24)  # the float32 number below 1
    # v: -0.5 -> (-0.5 + 1.5) / 2 = 0.5 -> (0.5 + 1.5) / 2 = 1 fires, back to -0.5 -> (-0.5 + 2) / 2 = 0.75
    made = run(graph, [[1.5], [1.5], [2.0]])
    assert made.membranes["lif"][0, :, 0].tolist() == [0.5, -0.5, 0.75]
    assert made.spikes["lif"][0, :, 0].tolist() == made.output[0, :, 0].tolist() == [0.0, 1.0, 0.0]


def test_another_decay_is_another_time_constant() -> None:
    neurons = Neurons(torch.tensor([9.0]), torch.tensor([0.0]), 0.75, "lif")
    graph = spiking(("lif", neurons), edges=((INPUT, "lif"),))
    assert _nir_graph.build(graph, DT, {}).nodes["lif"].tau.tolist() == [0.04]
    # 0.75 * 0 + 0.25 * 4 = 1, then 0.75 * 1 + 0.25 * 4 = 1.75
    assert run(graph, [[4.0], [4.0]]).membranes["lif"][0, :, 0].tolist() == [1.0, 1.75]


def test_simulated_neurons_are_those_of_torch() -> None:
    torch.manual_seed(1)
    lif = LIF(64)
    lif.threshold, lif.rest = torch.rand(64) + 0.1, torch.randn(64) / 4
    x = torch.randn(3, 100, 64) * 2
    graph = spiking(("lif", Neurons(lif.threshold, lif.rest, 0.5, "lif")), edges=((INPUT, "lif"),), width=64)
    made = nir_run.simulate(_nir_graph.build(graph, DT, {"dt": DT}), x.numpy())
    v, steps = lif.rest.expand(3, -1), []
    for drive in x.unbind(1):
        spikes, v = lif(drive, v)
        steps.append((spikes, v))
    assert np.array_equal(made.spikes["lif"], torch.stack([s for s, _ in steps], 1).numpy())
    assert np.array_equal(made.membranes["lif"], torch.stack([v for _, v in steps], 1).numpy())


def test_delays_by_hand() -> None:
    graph = spiking(("late", Delay(torch.tensor([0, 1, 3]))), edges=((INPUT, "late"),), width=3)
    assert np.allclose(_nir_graph.build(graph, DT, {}).nodes["late"].delay, [0.0, 0.01, 0.03])
    made = run(graph, [[1, 10, 100], [2, 20, 200], [3, 30, 300], [4, 40, 400]])
    assert made.output[0].tolist() == [[1, 0, 0], [2, 10, 0], [3, 20, 0], [4, 30, 100]]


def test_products_scales_and_sums_by_hand() -> None:
    graph = spiking(
        ("plain", Product(torch.tensor([[1.0, 2.0]]))),
        ("shifted", Product(torch.tensor([[3.0, 0.0]]), torch.tensor([0.5]))),
        ("scaled", Scale(torch.tensor([-2.0]))),
        edges=((INPUT, "plain"), (INPUT, "shifted"), ("plain", "scaled"), ("shifted", "scaled")),
        width=2,
    )
    # ((1 + 2 * 10) + (3 * 1 + 0.5)) * -2
    assert run(graph, [[1, 10]]).output.tolist() == [[[-49.0]]]


def test_a_window_is_products_behind_delays() -> None:
    layer = nn.Linear(6, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0, 10.0, 20.0, 100.0, 200.0]]))
        layer.bias.fill_(0.5)
    for made in (layer, pair(layer)):
        wiring = Wiring("test")
        terms = wiring.window("conv", made, INPUT, 3)
        wiring.add("all", Scale(torch.ones(1)), *terms)
        graph = SpikingGraph(2, wiring.nodes, tuple(wiring.edges), "all", (), nn.Identity(), ())
        # newest frame times (100, 200), the one before times (10, 20), the one before that times (1, 2)
        assert run(graph, [[1, 0], [0, 1], [0, 0]]).output[0, :, 0].tolist() == [100.5, 210.5, 21.5]


def pair(layer: nn.Linear) -> LowRank:
    """The same layer as a product of two."""
    made = LowRank(layer.in_features, 1, 1, bias=True)
    with torch.no_grad():
        made.down.weight.copy_(layer.weight / 2)
        made.up.weight.fill_(2.0)
        assert made.up.bias is not None
        made.up.bias.copy_(layer.bias)
    return made


def test_exactness_is_seen_in_the_numbers() -> None:
    def of(weight: float, *others: float, bias: float | None = None) -> bool:
        row = torch.tensor([[weight, *others]])
        node = Product(row, None if bias is None else torch.tensor([bias]))
        graph = spiking(("w", node), edges=((INPUT, "w"),), width=row.shape[1])
        return sums_are_exact(_nir_graph.build(graph, DT, {"input_rounding": np.array([[0.5, -1.0, 1.0]])}))

    # inputs are halves of at most 1: with weight 2^-22 the unit is 2^-23, and 2^24 of them are 2
    assert of(2.0**-22, 1.0)
    assert of(2.0**-22, 2 - 2.0**-22)
    assert not of(2.0**-22, 2.0)
    assert not of(2.0**-22, 1.0, bias=1.0)
    assert not of(0.1, 1.0)
    assert of(0.0, 0.0, bias=0.0)


def test_rounding_on_entry() -> None:
    graph = spiking(("same", Scale(torch.ones(1))), edges=((INPUT, "same"),))
    made = _nir_graph.build(graph, DT, {"dt": DT, "input_rounding": np.array([[0.5, -1.0, 0.5]])})
    x = np.array([[[-9.0], [-0.3], [0.25], [0.75], [9.0]]], np.float32)
    assert nir_run.simulate(made, x).output[0, :, 0].tolist() == [-1.0, -0.5, 0.0, 0.5, 0.5]


def test_decisions_are_means_so_far() -> None:
    assert nir_run.decisions(np.array([[[2.0], [4.0], [0.0]]], np.float32))[0, :, 0].tolist() == [2.0, 3.0, 2.0]


@pytest.mark.parametrize("name", ["a.b", "a/b", "input", "output"])
def test_names_that_readers_stumble_over_are_refused(name: str) -> None:
    graph = spiking((name, Scale(torch.ones(1))), edges=((INPUT, name),))
    with pytest.raises(PreconditionError, match=f"names of nodes must be letters, digits .* got '{name}'; rename it"):
        _nir_graph.build(graph, DT, {})


def test_graphs_that_nir_refuses() -> None:
    wide = spiking(("a", Scale(torch.ones(3))), edges=((INPUT, "a"),))
    with pytest.raises(
        PreconditionError, match=r"spiking_graph\(\) must be a graph whose widths and names fit, got: .*mismatch"
    ):
        _nir_graph.build(wide, DT, {})
    with pytest.raises(PreconditionError, match=r"got: .*'b' which does not exist.*; correct the module"):
        _nir_graph.build(spiking(("a", Scale(torch.ones(1))), edges=((INPUT, "a"), ("a", "b"))), DT, {})
    with pytest.raises(InputError, match=r"nir: the file must hold a NIR graph, got: .*; export it again"):
        _nir_graph.from_bytes(b"not HDF5")


def test_what_the_simulator_cannot_run() -> None:
    one = {"input": nir.Input({"input": np.array([1])}), "output": nir.Output({"output": np.array([1])})}
    x = np.zeros((1, 4, 1), np.float32)

    def graph(edges: list[tuple[str, str]], metadata: dict[str, Any] | None = None, **nodes: Any) -> Any:
        return nir.NIRGraph({**one, **nodes}, edges, metadata=metadata or {"dt": DT})

    line = [("input", "a"), ("a", "output")]
    scale = nir.Scale(np.ones(1))
    with pytest.raises(InputError, match="nir: the length of a step must be known and above 0, got None; pass dt"):
        nir_run.simulate(graph(line, {"x": 1}, a=scale), x)
    assert nir_run.simulate(graph(line, {"x": 1}, a=scale), x, dt=0.5).output.shape == (1, 4, 1)
    with pytest.raises(
        InputError, match=r"nir: node a must be one of Affine, Delay, .*LIF.*, got I; run the file in a simulator"
    ):
        nir_run.simulate(graph(line, a=nir.I(np.ones(1))), x)
    with pytest.raises(InputError, match=r"nir: the graph must have no loop, got .*a -> .*; run it in a simulator"):
        nir_run.simulate(graph([*line, ("a", "b"), ("b", "a")], a=scale, b=scale), x)
    with pytest.raises(InputError, match="nir: the graph must have one Output node, got 2; run its parts one by one"):
        nir_run.simulate(graph([*line, ("a", "b")], a=scale, b=nir.Output({"output": np.array([1])})), x)
    with pytest.raises(InputError, match=r"nir: delays must be whole steps of 0\.01, got 1\.5 steps; check dt"):
        nir_run.simulate(graph(line, a=nir.Delay(np.array([0.015]))), x)
    with pytest.raises(InputError, match=r"nir: features must have the shape \(clips, steps, 1\), got \(1, 4, 2\)"):
        nir_run.simulate(graph(line, a=scale), np.zeros((1, 4, 2), np.float32))
