"""Heads of a single layer: their parts add up to the network, and heads that do nothing are found and go."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from experiment_scripts import load


@pytest.fixture(scope="module")
def w5() -> ModuleType:
    return load("wide_w5")


@pytest.fixture
def case(w5: ModuleType) -> tuple[Any, Any]:
    """A network of four heads, two of which add nothing, and reviews that it judges itself."""
    torch.manual_seed(0)
    net = w5.WideEncoder(replace(w5.VARIANTS["1x16"], heads=4, dim=16, head_width=4, ffn=24, length=40)).eval()
    with torch.no_grad():
        net.layers[0].attention.proj.weight[:, :4] = 0
        net.layers[0].attention.proj.weight[:, 8:12] = 0
    lengths = np.random.default_rng(0).integers(1, 41, 70)
    tokens = torch.randint(97, 123, (70, 40)).byte()
    tokens[torch.arange(40) >= torch.from_numpy(lengths)[:, None]] = 0
    with torch.no_grad():
        labels = net(tokens).argmax(1)
    return net, w5.Reviews(tokens, lengths, labels)


def test_parts_of_all_heads_add_up_to_the_network(w5: ModuleType, case: tuple[Any, Any]) -> None:
    net, reviews = case
    parts = w5.taken_apart(net, reviews, batch=16)
    with torch.no_grad():
        expected = net(reviews.tokens)
    assert torch.allclose(w5.scores(net, parts, range(4)), expected, atol=1e-5)
    assert float(parts.heads[:, [0, 2]].abs().max()) == 0.0


def test_heads_that_add_nothing_go_first_and_leave_the_same_network(w5: ModuleType, case: tuple[Any, Any]) -> None:
    net, reviews = case
    found = w5.study(net, reviews, reviews)
    assert found["alone"][0] == found["alone"][2] == 0.0
    sets = [set(step["heads"]) for step in found["backwards"]]
    assert list(map(len, sets)) == [4, 3, 2, 1, 0]
    assert all(b < a for a, b in itertools.pairwise(sets))
    mode = found["modes"]["accuracy"]
    assert set(mode["heads"]) <= {1, 3}
    assert mode["largest_difference"] < 1e-5
    per_head = 4 * 16 * 4
    assert found["whole"]["parameters"] - mode["parameters"] == (4 - len(mode["heads"])) * per_head
    assert len(mode["random_test_right"]) == w5.DRAWS
