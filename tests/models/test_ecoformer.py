"""EcoFormer's networks: published numbers of weights, hash states, ways between attentions, the authors' checkpoints."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from edgetk.core.errors import InputError, PreconditionError, UsageError
from edgetk.models import ecoformer
from edgetk.models._ecoformer_convert import to_ecoformer, to_frozen, to_msa
from edgetk.models._ecoformer_published import from_published
from edgetk.models.ecoformer import PUBLISHED, VARIANTS, Config, PyramidTransformer, build
from edgetk.models.layers.hashed_attention import HashedAttention

#: (sra, msa, ecoformer), 1000 classes
PARAMETERS = {
    "b0": (3_666_760, 3_198_280, 3_136_328),
    "b1": (14_009_000, 12_138_152, 11_891_368),
    "b2": (25_362_856, 21_062_376, 20_367_528),
    "b3": (45_238_696, 36_011_496, 34_084_008),
    "b4": (62_556_072, 48_583_720, 45_665_704),
    "twins-s": (None, 22_221_352, 21_522_088),
}


def narrow(attention: ecoformer.Attention, seed: int = 0, **config: object) -> PyramidTransformer:
    """A small network of four stages of 8 x 8 (64) tokens down to 1."""
    torch.manual_seed(seed)
    shape = Config(
        attention=attention, size=(64, 64), dims=(8, 8, 10, 16), depths=(1, 2, 1, 1), reductions=(2, 2, 1, 1), classes=5,
        patch=(7, 2), heads=(1, 2, 5, 8), bits=2,
    )  # fmt: skip
    net = PyramidTransformer(replace(shape, **config)).eval()  # type: ignore[arg-type]
    net.randomise_hashes()
    return net


def images(count: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", PARAMETERS)
def test_published_numbers_of_parameters(size: str) -> None:
    found = []
    for attention in ("-sra", "-msa", ""):
        config = {**VARIANTS, **PUBLISHED}.get(size + attention)
        with torch.device("meta"):
            found.append(config and sum(p.numel() for p in PyramidTransformer(config).parameters()))
    assert tuple(found) == PARAMETERS[size]


def test_hash_buffers_of_b0() -> None:
    net = build("b0").module
    assert isinstance(net, PyramidTransformer)
    assert sum(h.A.numel() + h.mvec.numel() + h.anchor.numel() for h in net.hashes()) == 19_600
    assert [h.A.shape for h in net.hashes()] == [(1, 16, 25)] * 2 + [(2, 16, 25)] * 2 + [(5, 16, 25)] * 2


def test_small_variants_are_small_and_have_many_tokens() -> None:
    for variant, config in VARIANTS.items():
        if variant.startswith(("cifar", "kws")):
            net = build(variant).module
            assert 0.3e6 < sum(p.numel() for p in net.parameters()) < 1e6
            _, grid = net.stages[0].embed(torch.zeros(1, max(config.channels, 1), *config.size))
            assert grid == (32, 32)
    assert build("kws").signature.inputs[0].shape == ("batch", 128, 128)
    assert build("cifar").signature.inputs[0].shape == ("batch", 3, 32, 32)
    assert (build("kws").task, build("cifar-msa").task, build("b0").task) == ("speech-commands", "cifar10", "")


def test_spectrograms_are_images_of_one_channel() -> None:
    net = narrow("ecoformer", channels=0)
    x = images()[:, 0]
    with torch.no_grad():
        assert torch.equal(net(x), net(x[:, None]))


def test_config_is_recorded_and_builds_the_same_again() -> None:
    bundle = build("cifar", classes=3, dims=[16, 32, 64], sigma="frozen")
    assert bundle.source["config"]["dims"] == [16, 32, 64]
    again = build(bundle.source["variant"], **bundle.source["config"])
    assert again.source == bundle.source
    assert {k: v.shape for k, v in again.module.state_dict().items()} == {
        k: v.shape for k, v in bundle.module.state_dict().items()
    }


def test_a_fresh_network_says_that_its_hashes_have_seen_no_data() -> None:
    net = narrow("ecoformer")
    assert (net.hash_state, narrow("msa").hash_state) == ("random", "none")
    assert len(net.learn_hashes(images(), torch.Generator().manual_seed(0))) == 4
    assert net.hash_state == "learned"
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert net.learn_hashes(images(seed=1)) == ()
    net.train()(images(seed=1)).sum().backward()  # no forward pass learns
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is not None for p in net.parameters())
    copied = PyramidTransformer(net.config)
    assert copied.hash_state == "unlearned"
    copied.load_state_dict(net.state_dict())
    assert copied.hash_state == "learned"
    with torch.no_grad():
        assert torch.equal(copied.eval()(images()), net.eval()(images()))


def test_an_unlearned_network_refuses_to_work() -> None:
    with pytest.raises(PreconditionError, match=r"ecoformer: stage 0: must be learned on data before it is used"):
        PyramidTransformer(narrow("ecoformer").config)(images())


def test_learning_needs_enough_tokens() -> None:
    net = narrow("ecoformer", size=(16, 16))
    with pytest.raises(InputError, match=r"ecoformer: stage 1: learning needs .* N >= 25, got \(2, 2, 16, 4\)"):
        net.learn_hashes(images()[..., :16, :16])


def test_the_way_from_sra_to_ecoformer() -> None:
    sra = narrow("sra", reductions=(1, 1, 1, 1))
    msa = to_msa(sra)
    with torch.no_grad():
        assert torch.allclose(msa(images()), sra(images()), atol=1e-5), "nothing was reduced, so nothing changes"
    reduced = to_msa(narrow("sra"))
    assert reduced.config == narrow("msa").config
    eco = to_ecoformer(msa)
    assert eco.hash_state == "unlearned"
    for before, after in zip(msa.stages[:-1], eco.stages[:-1], strict=True):
        for left, right in zip(before.blocks, after.blocks, strict=True):
            query, _, value = left.attention.qkv.weight.chunk(3)
            assert torch.equal(right.attention.to_qk.weight, query)
            assert torch.equal(right.attention.to_v.weight, value)
            assert torch.equal(right.attention.to_v.bias, left.attention.qkv.bias.chunk(3)[2])
            assert torch.equal(right.mlp.mix.weight, left.mlp.mix.weight)
    assert torch.equal(eco.stages[-1].blocks[0].attention.qkv.weight, msa.stages[-1].blocks[0].attention.qkv.weight)
    eco.learn_hashes(images())
    build("cifar").with_body(eco)
    with torch.no_grad():
        assert eco(images()).shape == (2, 5)


def test_ways_start_from_the_right_attention() -> None:
    for turn, wanted, given in ((to_msa, "sra", "msa"), (to_ecoformer, "msa", "sra")):
        with pytest.raises(PreconditionError, match=rf"{turn.__name__}: must be given a network with {wanted} .* got {given}"):
            turn(narrow(given))  # type: ignore[arg-type]
    with pytest.raises(PreconditionError, match=r"to_frozen: must be given a network with ecoformer attention, got msa; go"):
        to_frozen(narrow("msa"), images())


def test_frozen_sigmas_build_and_load_again() -> None:
    net = narrow("ecoformer")
    net.learn_hashes(images())
    frozen = to_frozen(net, images())
    assert all(h.sigma is None for h in net.hashes())
    again = PyramidTransformer(frozen.config)
    again.load_state_dict(frozen.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(images()), frozen(images()))


def published(net: PyramidTransformer) -> dict[str, Tensor]:
    """The weights of `net` under the names of the authors' PVTv2, as far as they are known."""
    names = {
        r"stages\.(\d)\.embed\.": "patch_embed{}.",
        r"stages\.(\d)\.norm\.": "norm{}.",
        r"stages\.(\d)\.blocks\.": "block{}.",
    }
    parts = {
        ".attention.hash.": ".attn.fast_attention.ksh.", ".attention.reduce.": ".attn.sr.", ".attention.": ".attn.",
        ".mlp.expand.": ".mlp.fc1.", ".mlp.mix.": ".mlp.dwconv.dwconv.", ".mlp.reduce.": ".mlp.fc2.",
    }  # fmt: skip
    found = {}
    for name, value in net.state_dict().items():
        if name.endswith(".learned"):
            continue
        for pattern, there in names.items():
            if match := re.match(pattern, name):
                name = there.format(int(match[1]) + 1) + name[match.end() :]
        for here, there in parts.items():
            name = name.replace(here, there)
        if net.config.attention == "sra" and ".attn.qkv." in name:
            dim = len(value) // 3
            found |= {name.replace("qkv", "q"): value[:dim], name.replace("qkv", "kv"): value[dim:]}
        else:
            found[name] = value
    if net.config.attention == "ecoformer":
        found["block1.0.attn.fast_attention.projection_matrix"] = torch.zeros(16, 8)
    return found


#: what weights tell of the codes: nothing where there are none
CODES = {"sra": {"bits": 16}, "msa": {"bits": 16}, "ecoformer": {"bits": 8, "anchors": 12}}


@pytest.mark.parametrize("attention", CODES)
def test_weights_in_the_authors_layout_give_the_same_network(attention: ecoformer.Attention) -> None:
    """A round trip: there are no recorded outputs of a whole published network to compare with."""
    net = narrow(attention, patch=(7, 4), dims=(8, 16, 20, 16), reductions=(8, 4, 2, 1), **CODES[attention])
    state = published(net)
    assert "block1.0.mlp.dwconv.dwconv.weight" in state
    again = from_published(state, size=(64, 64))
    assert again.config == net.config
    assert again.hash_state == ("learned" if attention == "ecoformer" else "none")
    with torch.no_grad():
        assert torch.equal(again(images()), net(images()))


def test_names_and_shapes_of_the_published_b0() -> None:
    with torch.device("meta"):
        state = published(PyramidTransformer(VARIANTS["b0"]))
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert shapes["patch_embed1.proj.weight"] == (32, 3, 7, 7)
    assert shapes["block3.1.attn.to_qk.weight"] == (160, 160)
    assert shapes["block3.1.attn.fast_attention.ksh.A"] == (5, 16, 25)
    assert shapes["block3.1.attn.fast_attention.ksh.mvec"] == (1, 5, 1, 25)
    assert shapes["block3.1.attn.fast_attention.ksh.anchor"] == (1, 5, 25, 32)
    assert shapes["block4.0.attn.qkv.weight"] == (768, 256)
    assert shapes["head.weight"] == (1000, 256)


def test_foreign_weights_are_refused() -> None:
    state = published(narrow("msa", patch=(7, 4)))
    lost = {k: v for k, v in state.items() if k != "norm2.bias"}
    wrong = {**state, "head.bias": torch.zeros(4)}
    cases = {
        r"ecoformer: weights must use the names of the authors' PVTv2, got 'fc.weight'; hand in": {**state, "fc.weight": wrong},
        r"ecoformer: weights must hold every layer, got none for stages.1.norm.bias; hand in": lost,
        r"ecoformer: weights must hold every layer, got none for 'head.weight'; hand in": {
            k: v for k, v in state.items() if k != "head.weight"
        },
        r"ecoformer: weights must be those of one network, got also stages.0.blocks.0.attention.to_v.bias; hand in": {
            **state,
            "block1.0.attn.to_v.bias": torch.zeros(8),
        },
        r"ecoformer: head.bias must have the shape \(5,\), got \(4,\); hand in": wrong,
    }
    for text, weights in cases.items():
        with pytest.raises(InputError, match=text):
            from_published(weights)  # type: ignore[arg-type]


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"ecoformer: attention must be one of ecoformer, msa, sra, got 'linear'; correct it"):
        build("cifar", attention="linear")
    with pytest.raises(UsageError, match=r"ecoformer: family must be one of pvt, twins, got 'vit'; correct it"):
        build("cifar", family="vit")
    with pytest.raises(UsageError, match=r"must have one entry per stage, got 2, 3 entries; make them equally long"):
        build("cifar", dims=(32, 64))


def test_the_last_stage_keeps_softmax_attention() -> None:
    net = narrow("ecoformer")
    hashed = [[isinstance(b.attention, HashedAttention) for b in stage.blocks] for stage in net.stages]
    assert hashed == [[True], [True, True], [True], [False]]
