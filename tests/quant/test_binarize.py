"""Binary attention and binary weights: what is found, what is turned, what is learned, what is stored, what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import PassResult, Split
from edgetk.core.errors import PreconditionError, RecipeError, UsageError
from edgetk.core.signature import Signature, TensorSpec
from edgetk.models._ecoformer_convert import to_ecoformer, to_msa
from edgetk.models.ecoformer import PyramidTransformer, build
from edgetk.models.layers.attention import merge_heads, softmax_attention, split_heads
from edgetk.models.layers.binary_weights import Binarized, BinaryLinear, start_training, trained
from edgetk.models.layers.hashed_attention import HashedAttention
from edgetk.quant import _attention
from edgetk.quant._signs import signs
from edgetk.quant.binarize import Binarize

TOKENS, FEATURES, CLASSES = 32, 8, 3
SIZES = {"train": 96, "validation": 48, "test": 48}
QUICK: dict[str, Any] = {"epochs": 0, "batch": 16, "calibration": 4, "augment": "none", "device": "cpu", "average": 0.0}


class Frozen:
    """Three classes, each with its own band of features; to calibrate and validate on."""

    labels = ("one", "two", "three")
    origin = "made up"

    def split(self, name: str) -> Split:
        generator = torch.Generator().manual_seed(list(SIZES).index(name))
        labels = torch.arange(SIZES[name]) % CLASSES
        features = torch.randn(SIZES[name], TOKENS, FEATURES, generator=generator)
        for k in range(CLASSES):
            features[labels == k, :, 2 * k : 2 * k + 2] += 0.7
        return Split(name, features, labels, self.origin)

    def calibration(self, n: int) -> Tensor:
        return self.split("train").features[:n]


class Bands(Frozen):
    """The same, and a training split to learn from."""

    augmentations: Mapping[str, Any] = {"none": None}

    def batches(
        self, device: torch.device | str, augmentation: Any = None
    ) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor]], int]:
        train = self.split("train")
        return lambda rows: (train.features[rows], F.one_hot(train.labels[rows], CLASSES).float()), len(train.labels)


class Half(Bands):
    """The first half of the tokens."""

    def split(self, name: str) -> Split:
        whole = super().split(name)
        return replace(whole, features=whole.features[:, :16])


class Separate(nn.Module):
    """A user's attention: three layers without biases, and `num_heads`."""

    def __init__(self, dim: int = FEATURES, heads: int = 2) -> None:
        super().__init__()
        self.num_heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(layer(x), self.num_heads) for layer in (self.to_q, self.to_k, self.to_v))
        y: Tensor = self.proj(merge_heads(softmax_attention(q, k, v)))
        return y


class User(nn.Module):
    """Two blocks of a user's attention, a convolution over tokens, a head."""

    def __init__(self, attention: Callable[[], nn.Module] = Separate) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.LayerNorm(FEATURES), attention())
        self.second = nn.Sequential(nn.LayerNorm(FEATURES), attention())
        self.mix = nn.Conv1d(FEATURES, FEATURES, 3, padding=1)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.first(x)
        x = x + self.second(x)
        y: Tensor = self.head(torch.relu(self.mix(x.transpose(1, 2))).mean(2))
        return y


def around(net: nn.Module, *shape: int, data: Any = None) -> Bundle:
    specs = TensorSpec("x", ("batch", *(shape or (TOKENS, FEATURES)))), TensorSpec("y", ("batch", CLASSES))
    signature = Signature((specs[0],), (specs[1],))
    return Bundle("user", net.eval(), signature, task="speech-commands", data=data or Bands(), labels=Bands.labels)


def user(attention: Callable[[], nn.Module] = Separate) -> Bundle:
    torch.manual_seed(0)
    bundle = around(User(attention))
    return replace(bundle, original=copy.deepcopy(bundle.body))


def pyramid(attention: str, reductions: tuple[int, ...] = (2, 1)) -> Bundle:
    """Two stages, with 128 and 32 tokens."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"size": (16, FEATURES), "patch": (3, 1), "dims": (8, 16), "depths": (1, 1), "heads": (1, 2)}
    bundle = build(f"kws{attention}", **shape, mlp_ratios=(2, 2), reductions=reductions, classes=CLASSES)
    return replace(bundle, data=Half(), labels=Bands.labels, original=copy.deepcopy(bundle.body))


def run(made: Binarize, bundle: Bundle, seed: int = 0) -> PassResult:
    made.check(bundle)
    torch.manual_seed(seed)
    return made(replace(bundle, body=copy.deepcopy(bundle.body)))


def right(net: nn.Module) -> int:
    split = Bands().split("validation")
    with torch.no_grad():
        return int((net(split.features).argmax(1) == split.labels).sum())


# attention


def test_a_users_attention_keeps_queries_and_values_and_learns_its_hashes() -> None:
    bundle = user()
    result = run(Binarize(**QUICK, bits=8, anchors=20), bundle)
    made, old = result.body.first[1], bundle.module.get_submodule("first.1")
    assert isinstance(made, HashedAttention)
    assert torch.equal(made.to_qk.weight, old.to_q.weight)  # type: ignore[union-attr]
    assert torch.equal(made.to_v.weight, old.to_v.weight)  # type: ignore[union-attr]
    assert torch.equal(made.proj.bias, old.proj.bias)  # type: ignore[union-attr]
    assert torch.equal(made.to_qk.bias, torch.zeros(FEATURES))
    assert (made.heads, made.hash.A.shape, made.hash.state) == (2, (2, 8, 20), "learned")
    assert result.notes["attention"] == ["first.1", "second.1"]
    assert result.notes["calibration_inputs"] == 4


def test_each_layer_learns_from_what_the_learned_ones_before_it_give() -> None:
    bundle = user()
    body = run(Binarize(**QUICK), bundle).body
    x = Bands().calibration(4)
    with torch.no_grad():
        seen = body.second[0](x + body.first(x))
        z = split_heads(body.second[1].to_qk(seen), 2)
    anchors = body.second[1].hash.anchor[0]  # (H, m, d), all of the first input's own vectors
    distance = torch.cdist(anchors, F.normalize(z[0], dim=-1)).amin(-1)
    assert distance.max() < 1e-3


def test_the_zoos_softmax_network_becomes_the_zoos_ecoformer() -> None:
    bundle = pyramid("-msa")
    result = run(Binarize(**QUICK, keep=("stages.1",)), bundle)
    assert isinstance(bundle.module, PyramidTransformer)
    twin = to_ecoformer(bundle.module)
    twin.load_state_dict(result.body.state_dict())
    x = Half().split("test").features
    with torch.no_grad():
        torch.testing.assert_close(result.body(x), twin(x))
    for name in ("to_qk", "to_v"):
        ours = result.body.get_parameter(f"stages.0.blocks.0.attention.{name}.weight")
        theirs = to_ecoformer(bundle.module).get_parameter(f"stages.0.blocks.0.attention.{name}.weight")
        assert torch.equal(ours, theirs)
    assert twin.hash_state == "learned"


def test_reduced_attention_becomes_softmax_attention_as_published() -> None:
    bundle = pyramid("-sra")
    assert isinstance(bundle.module, PyramidTransformer)
    expected = to_msa(bundle.module)
    ours = copy.deepcopy(bundle.module)
    found = _attention.find(ours)[0]
    assert found == {"stages.0.blocks.0.attention": "reduced", "stages.1.blocks.0.attention": "fused"}
    name = next(iter(found))
    ours.set_submodule(name, _attention.to_softmax(ours.get_submodule(name), "reduced"))
    x = Half().split("test").features
    with torch.no_grad():
        torch.testing.assert_close(ours(x), expected(x))


def test_both_stages_of_the_published_recipe() -> None:
    """Reduced -> softmax, trained -> binary, trained: the notes have both, and the structure is rebuilt from the original."""
    bundle = pyramid("-sra")
    made = Binarize(**{**QUICK, "epochs": 1}, softmax_epochs=1, distill=0.0)
    result = run(made, bundle)
    assert len(result.notes["softmax_stage"]["history"]) == len(result.notes["fine_tuning"]["history"]) == 1
    assert result.structure is not None
    fresh = made.rebuild(pyramid("-sra").module, result.structure)
    fresh.load_state_dict(result.body.state_dict())
    x = Half().split("test").features
    with torch.no_grad():
        assert torch.equal(fresh.eval()(x), result.body(x))


def test_layers_and_keep_choose() -> None:
    found = run(Binarize(**QUICK, layers=("second",)), user()).notes["attention"]
    assert found == ["second.1"]
    assert run(Binarize(**QUICK, keep=("first.1",)), user()).notes["attention"] == ["second.1"]


def test_frozen_sigma_makes_a_code_a_matter_of_its_token_alone() -> None:
    body = run(Binarize(**QUICK, sigma="frozen"), user()).body
    x = Bands().calibration(2)
    layer = body.first[1]
    with torch.no_grad():
        assert torch.equal(layer.codes(x)[:, :, :5], layer.codes(x[:, :5]))


def test_numerator_reaches_the_layer() -> None:
    bundle = user()
    bodies = [run(Binarize(**QUICK, numerator=n), bundle).body for n in ("own_token", "sum")]
    assert [b.first[1].numerator for b in bodies] == ["own_token", "sum"]
    x = Bands().calibration(4)
    with torch.no_grad():
        assert not torch.allclose(bodies[0](x), bodies[1](x))


def test_training_brings_accuracy_back_and_keeps_the_hashes() -> None:
    bundle = user()
    before = run(Binarize(**QUICK), bundle)
    after = run(Binarize(**{**QUICK, "epochs": 6, "lr": 2e-2, "distill": 0.0, "loss": "ce"}), bundle)
    notes = after.notes["fine_tuning"]
    assert right(after.body) == notes["validation_correct"] > right(before.body)
    assert notes["validation_correct"] > 40
    assert torch.equal(after.body.first[1].hash.A, before.body.first[1].hash.A)
    assert torch.equal(after.body.first[1].hash.anchor, before.body.first[1].hash.anchor)
    assert not after.body.training


# weights


def test_scale_and_signs_by_hand() -> None:
    w = torch.tensor([[1.0, -2.0, 3.0, 0.0], [-0.5, -0.5, 0.5, -0.5]])
    codes, scale = signs(w)
    assert codes.tolist() == [[1, -1, 1, 1], [-1, -1, 1, -1]]
    assert codes.dtype == torch.int8
    torch.testing.assert_close(scale, torch.tensor([1.5, 0.5]))
    torch.testing.assert_close(Binarized()(w), codes * scale[:, None])


def test_the_gradient_passes_signs_where_weights_are_small() -> None:
    w = torch.tensor([[0.5, -0.5, 2.0, -3.0]], requires_grad=True)
    (Binarized()(w) * torch.tensor([[1.0, 10.0, 100.0, 1000.0]])).sum().backward()
    # by the sign: scale 1.5 times the slope where |w| <= 1; by the scale: sum of slope * sign over 4 weights, times sign
    through_scale = (1.0 - 10.0 + 100.0 - 1000.0) / 4
    expected = [1.5 + through_scale, 15.0 - through_scale, through_scale, -through_scale]
    assert w.grad is not None
    torch.testing.assert_close(w.grad, torch.tensor([expected]))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 4), (2, 5, 6)),
        (nn.Linear(6, 4, bias=False), (2, 6)),
        (nn.Conv1d(4, 6, 3, padding=1, groups=2), (2, 4, 7)),
        (nn.Conv2d(3, 4, 3, stride=2, padding=1), (2, 3, 8, 8)),
    ],
)
def test_what_is_stored_computes_what_was_trained(layer: nn.Module, shape: tuple[int, ...]) -> None:
    net = nn.Sequential(copy.deepcopy(layer))
    training = copy.deepcopy(net)
    start_training(training[0])
    result = Binarize(attention=False, weights=("0",), **QUICK)(around(net, *shape[1:]))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(result.body(x), training(x))
    assert result.structure == {"attention": {}, "weights": ["0"]}
    assert torch.equal(trained(training[0]), layer.weight)


def test_the_report_says_what_bits_cost_on_disk() -> None:
    notes = run(Binarize(attention=False, weights=("mix",), **QUICK), user()).notes["weights"]
    count = FEATURES * FEATURES * 3
    assert (notes["layers"], notes["binary_weights"], notes["scales"]) == (["mix"], count, FEATURES)
    assert notes["stored_bytes"] == count + 4 * FEATURES
    assert notes["packed_bytes"] == count // 8 + 4 * FEATURES
    assert notes["stored_as"].startswith("int8, one byte a weight, in safetensors and in ONNX")


def test_binary_weights_of_turned_attention() -> None:
    result = run(Binarize(weights=("to_v",), layers=("first",), **QUICK), user())
    assert result.notes["weights"]["layers"] == ["second.1.to_v", "first.1.to_v"]
    assert isinstance(result.body.first[1].to_v, BinaryLinear)
    assert result.body.first[1].hash.state == "learned"


def test_training_moves_the_signs() -> None:
    bundle = user()
    made = Binarize(**{**QUICK, "epochs": 6, "lr": 2e-2, "distill": 0.0}, attention=False, weights=("first", "second", "mix"))
    after = run(made, bundle)
    still = run(replace(made, epochs=0), bundle)
    assert right(after.body) > right(still.body)
    assert not torch.equal(after.body.mix.weight, still.body.mix.weight)


# what is refused


class WithBias(Separate):
    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(TOKENS, TOKENS))


class WithMask(Separate):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(x)


class Narrow(Separate):
    def __init__(self) -> None:
        super().__init__()
        self.to_k = nn.Linear(FEATURES, 4)


class Odd(Separate):
    def __init__(self) -> None:
        super().__init__(heads=3)


class Wrapped(Separate):
    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Sequential(nn.Linear(FEATURES, FEATURES))  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("attention", "reason"),
    [
        (WithBias, r"first\.1: it has the parameter position beside its projections"),
        (WithMask, r"first\.1: its forward takes x, mask, not x or x, grid"),
        (Narrow, r"first\.1: its to_k goes from 8 to 4, not from 8 to 8"),
        (Odd, r"first\.1: its heads must be a number that divides 8, and it declares 3"),
        (Wrapped, r"first\.1: its to_q is Sequential, not nn\.Linear"),
        (nn.Identity, r"docs/passes\.md says what a module must declare"),
    ],
)
def test_what_is_no_plain_attention_is_refused_with_the_reason(attention: Callable[[], nn.Module], reason: str) -> None:
    with pytest.raises(PreconditionError, match=rf"needs softmax attention that it may turn, got none in user.*{reason}"):
        Binarize(**QUICK).check(user(attention))


def test_binary_attention_is_not_turned_again() -> None:
    body = run(Binarize(**QUICK), user()).body
    with pytest.raises(PreconditionError, match=r"needs softmax attention that it may turn, got none in user"):
        Binarize(**QUICK).check(around(body))


class Skipped(User):
    def __init__(self) -> None:
        super().__init__()
        self.spare = Separate()


def test_what_cannot_be_binarized_is_refused() -> None:
    bundle = user()
    with pytest.raises(PreconditionError, match=r"binarize: needs data to learn hashes on, got a model without a task; name"):
        Binarize(**QUICK).check(replace(bundle, data=None))
    with pytest.raises(PreconditionError, match=r"must see at least 33 tokens, got 32 in first\.1; add it to keep"):
        Binarize(**QUICK, anchors=33).check(bundle)
    with pytest.raises(PreconditionError, match=r"must be called when the model runs, got spare, which is not; add it to keep"):
        Binarize(**QUICK).check(around(Skipped()))
    with pytest.raises(PreconditionError, match=r"layers and keep must name attention of user, got 'firs'; did you mean"):
        Binarize(**QUICK, keep=("firs",)).check(bundle)
    with pytest.raises(PreconditionError, match=r"weights must name linear or convolution layers, got 'mixx'; did you mean"):
        Binarize(**QUICK, weights=("mixx",)).check(bundle)
    trains = {**QUICK, "epochs": 1}
    with pytest.raises(PreconditionError, match=r"binarize: needs training data, got none for user; give the data set with"):
        Binarize(**trains).check(replace(bundle, data=Frozen()))
    with pytest.raises(PreconditionError, match=r"binarize: distill=0\.5 needs the model before compression as teacher"):
        Binarize(**trains).check(replace(bundle, original=None))
    with pytest.raises(PreconditionError, match=r"binarize: augment must be one of the task's, got 'robust'; known: none"):
        Binarize(**{**trains, "augment": "robust"}).check(bundle)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        (
            {"numerator": "all"},
            RecipeError,
            r"binarize: numerator must be one of own_token, sum, got 'all'; correct",
        ),
        ({"sigma": "fixed"}, RecipeError, r"binarize: sigma must be one of sample, frozen, got 'fixed'; correct the recipe"),
        ({"device": "tpu"}, RecipeError, r"binarize: device must be one of auto, cpu, cuda, got 'tpu'; correct the recipe"),
        ({"bits": 0}, RecipeError, r"binarize: bits must be at least 1, got 0; correct the recipe"),
        ({"epochs": -1}, RecipeError, r"binarize: epochs must be at least 0, got -1; correct the recipe"),
        (
            {"attention": False},
            RecipeError,
            r"binarize: attention or weights must be given to it, got neither; name",
        ),
        ({"loss": "mse"}, UsageError, r"training: loss must be 'bce' or 'ce', got 'mse'; correct it"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Binarize(**settings)
