"""Binary attention and binary weights: softmax attention becomes EcoFormer's on learned codes, chosen layers keep signs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import PassResult
from edgetk.core.errors import PreconditionError, RecipeError, closest

if TYPE_CHECKING:
    from torch import nn

    from edgetk.tasks.training.loop import Schedule


@dataclass(frozen=True)
class Binarize:
    """Attention by linear products of binary codes (Liu et al. 2022, EcoFormer, arXiv:2209.09004), weights by sign and scale
    per output channel (Rastegari et al. 2016, XNOR-Net, arXiv:1603.05279), then training on: accuracy is judged afterwards.

    Codes come from the queries' projection; the keys' one is dropped. Hashes are learned once, layer by layer in the
    network's order, on one batch. A module need only declare what `edgetk.quant._attention` says.
    """

    #: turn softmax attention into binary attention
    attention: bool = True
    #: names or whole parts of names ("stages.0", "attention") of the attention that is turned; empty: all of it
    layers: tuple[str, ...] = ()
    #: the same for attention that stays
    keep: tuple[str, ...] = ()
    #: the same for linear and convolution layers whose weights become binary
    weights: tuple[str, ...] = ()
    #: length of the codes
    bits: int = 16
    #: support vectors of the hash
    anchors: int = 25
    #: "own_token" as published, or "sum", whose weights add up to 1
    numerator: str = "own_token"
    #: spread of the kernel: of each "sample" as published, or "frozen" at learning
    sigma: str = "sample"
    #: inputs that the hashes are learned on, as one batch
    calibration: int = 32
    #: epochs with softmax attention over all tokens first, where attention was reduced
    softmax_epochs: int = 0
    #: epochs of training with what became binary; 0 leaves that to finetune
    epochs: int = 30
    batch: int = 128
    #: highest learning rate; half a cosine brings it to zero
    lr: float = 5e-4
    #: decoupled from the gradient; biases and norms have none
    weight_decay: float = 0.05
    #: "bce" or "ce", as the model was trained with
    loss: str = "bce"
    #: share of the original model's outputs in the targets, in [0, 1]
    distill: float = 0.5
    #: decay of the average of the weights that is evaluated
    average: float = 0.998
    #: name of the task's augmentation; "none" leaves inputs as they are
    augment: str = "robust"
    #: "auto" takes a GPU where there is one
    device: str = "auto"
    seed: int = 0

    accepts: ClassVar[tuple[str, ...]] = ("torch",)
    lossless: ClassVar[bool] = False

    def __post_init__(self) -> None:
        from edgetk.models.layers.binary_attention import NUMERATORS
        from edgetk.models.layers.kernel_hash import SIGMAS

        for name, known in (("numerator", NUMERATORS), ("sigma", SIGMAS), ("device", ("auto", "cpu", "cuda"))):
            if getattr(self, name) not in known:
                raise RecipeError(
                    f"binarize: {name} must be one of {', '.join(known)}, got {getattr(self, name)!r}; correct the recipe"
                )
        for name, least in (("bits", 1), ("anchors", 1), ("calibration", 1), ("softmax_epochs", 0), ("epochs", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise RecipeError(f"binarize: {name} must be at least {least}, got {getattr(self, name)}; correct the recipe")
        if not self.attention and not self.weights:
            raise RecipeError("binarize: attention or weights must be given to it, got neither; name weights or leave it out")
        self._schedule(max(self.epochs, 1))

    def _schedule(self, epochs: int) -> Schedule:
        from edgetk.tasks.training.loop import Schedule

        return Schedule(
            epochs=epochs, batch=self.batch, lr=self.lr, betas=(0.9, 0.999), weight_decay=self.weight_decay, decoupled=True,
            shape="cosine", loss=self.loss, average=self.average, distill=self.distill, seed=self.seed,
        )  # fmt: skip

    def check(self, bundle: Bundle) -> None:
        """There must be attention with enough tokens, data to learn on, layers of the names given, and what training needs."""
        chosen = self._chosen(bundle.module, bundle.name)
        self._weights(bundle.module, chosen)
        if chosen and bundle.data is None:
            raise PreconditionError(
                "binarize: needs data to learn hashes on, got a model without a task; "
                "name one with --task and its data with --data"
            )
        if self.epochs or self.softmax_epochs:
            from edgetk.tasks.training.tuning import require

            require("binarize", bundle, self.augment, self.distill)
        if chosen:
            self._require_tokens(bundle, chosen)

    def __call__(self, bundle: Bundle) -> PassResult:
        from edgetk.models.layers.binary_weights import start_training
        from edgetk.models.layers.hashed_attention import learn_hashes
        from edgetk.quant._attention import to_hashed, to_softmax
        from edgetk.tasks.training.tuning import resolve, tune

        body = bundle.module
        notes: dict[str, Any] = {}
        chosen = self._chosen(body, bundle.name)
        structure: dict[str, Any] = {"attention": {}, "weights": self._weights(body, chosen)}
        reduced = [name for name, layout in chosen.items() if layout == "reduced"]
        if reduced and self.softmax_epochs:
            for name in reduced:
                body.set_submodule(name, to_softmax(body.get_submodule(name), "reduced"))
                chosen[name] = "fused"
            notes["softmax_stage"] = tune(body, bundle, self._schedule(self.softmax_epochs), self.augment, self.device)
        for name, layout in chosen.items():
            made = to_hashed(body.get_submodule(name), layout, {**self._options(), "who": f"binarize: {name}"})
            body.set_submodule(name, made)
            structure["attention"][name] = {"dim": made.proj.in_features, "heads": made.heads, **self._options()}
        for name in structure["weights"]:  # before hashes are learned, so that they see what binary layers give
            start_training(body.get_submodule(name))
        if chosen:
            assert bundle.data is not None
            device = resolve(self.device)
            inputs = bundle.data.calibration(self.calibration).to(device)
            learned = learn_hashes(body.to(device).eval(), inputs)
            body.cpu()
            notes |= {"attention": list(learned), **self._options(), "calibration_inputs": len(inputs)}
        if self.epochs:
            notes["fine_tuning"] = tune(body, bundle, self._schedule(self.epochs), self.augment, self.device)
        if structure["weights"]:
            notes["weights"] = _store(body, structure["weights"])
        return PassResult(body.eval(), True, notes, structure)

    def rebuild(self, body: Any, structure: Mapping[str, Any]) -> Any:
        """Put binary attention and empty binary layers in the same places; weights, codes and hashes come afterwards."""
        from edgetk.models.layers.hashed_attention import HashedAttention

        for name, options in structure["attention"].items():
            body.set_submodule(name, HashedAttention(**options, who=f"binarize: {name}"))
        for name in structure["weights"]:
            body.set_submodule(name, _empty(body.get_submodule(name)))
        return body

    def _options(self) -> dict[str, Any]:
        return {"bits": self.bits, "anchors": self.anchors, "numerator": self.numerator, "sigma": self.sigma}

    def _chosen(self, body: nn.Module, model: str) -> dict[str, str]:
        """The attention that becomes binary: name -> layout. Raises PreconditionError where there is none."""
        from edgetk.quant._attention import find

        if not self.attention:
            return {}
        found, strange = find(body)
        for pattern in (*self.layers, *self.keep):
            if not any(_matches(name, (pattern,)) for name in found):
                raise PreconditionError(
                    f"binarize: layers and keep must name attention of {model}, got {pattern!r}; {closest(pattern, found)}"
                )
        wanted = {name: layout for name, layout in found.items() if not self.layers or _matches(name, self.layers)}
        chosen = {name: layout for name, layout in wanted.items() if not _matches(name, self.keep)}
        if not chosen:
            near = "; ".join(f"{name}: {reason}" for name, reason in list(strange.items())[:3])
            raise PreconditionError(
                f"binarize: needs softmax attention that it may turn, got none in {model}{f' ({near})' if near else ''}; "
                "docs/passes.md says what a module must declare, or set attention to false and name weights"
            )
        return chosen

    def _weights(self, body: nn.Module, chosen: Iterable[str]) -> list[str]:
        """The linear and convolution layers whose weights become binary, as they are called once attention was turned."""
        from torch import nn

        turned = tuple(chosen)
        names = [
            name
            for name, m in body.named_modules()
            if type(m) in (nn.Linear, nn.Conv1d, nn.Conv2d)
            and getattr(m, "padding_mode", "zeros") == "zeros"
            and not any(name.startswith(f"{t}.") for t in turned)
        ]
        names += [f"{name}.{part}" for name in turned for part in ("to_qk", "to_v", "proj")]
        for pattern in self.weights:
            if not any(_matches(name, (pattern,)) for name in names):
                raise PreconditionError(
                    f"binarize: weights must name linear or convolution layers, got {pattern!r}; {closest(pattern, names)}"
                )
        return [name for name in names if _matches(name, self.weights)]

    def _require_tokens(self, bundle: Bundle, chosen: Iterable[str]) -> None:
        """Each hash needs as many tokens as it has anchors, and twice as many as a token has neighbours."""
        from edgetk.models.layers.hash_learning import NEIGHBOURS

        least = max(self.anchors, 2 * NEIGHBOURS)
        tokens = _tokens(bundle, chosen)
        for name in chosen:
            if name not in tokens:
                raise PreconditionError(
                    f"binarize: attention must be called when the model runs, got {name}, which is not; add it to keep"
                )
            if tokens[name] < least:
                raise PreconditionError(
                    f"binarize: attention must see at least {least} tokens, got {tokens[name]} in {name}; add it to keep"
                )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern is the name or some whole parts of it that follow one another."""
    return any(f".{p}." in f".{name}." for p in patterns)


def _tokens(bundle: Bundle, names: Iterable[str]) -> dict[str, int]:
    """How many tokens each attention that runs sees, for one calibration input."""
    import torch

    assert bundle.data is not None
    seen: dict[str, int] = {}

    def look(name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen[name] = inputs[0].shape[1]

        return hook

    handles = [bundle.module.get_submodule(name).register_forward_pre_hook(look(name)) for name in names]
    try:
        with torch.no_grad():
            bundle.predict()(bundle.data.calibration(1))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _empty(layer: Any) -> nn.Module:
    from torch import nn

    from edgetk.models.layers.binary_weights import BinaryConv, BinaryLinear

    if isinstance(layer, nn.Linear):
        return BinaryLinear(layer.in_features, layer.out_features, layer.bias is not None)
    return BinaryConv(layer)


def _store(body: nn.Module, names: Iterable[str]) -> dict[str, Any]:
    """Put signs and scales in the place of trained weights; gives what the report says about them."""
    from edgetk.models.layers.binary_weights import trained
    from edgetk.quant._signs import signs

    count = scales = 0
    for name in names:
        layer: Any = body.get_submodule(name)
        made: Any = _empty(layer)
        codes, scale = signs(trained(layer))
        made.weight.copy_(codes)
        made.scale.copy_(scale)
        if layer.bias is not None:
            made.bias.copy_(layer.bias.detach())
        body.set_submodule(name, made.to(codes.device))
        count, scales = count + codes.numel(), scales + scale.numel()
    return {
        "layers": list(names),
        "binary_weights": count,
        "scales": scales,
        "stored_bytes": count + 4 * scales,
        "packed_bytes": -(-count // 8) + 4 * scales,
        "stored_as": "int8, one byte a weight, in safetensors and in ONNX, which has no type of one bit; computed in float32",
    }


PASS = Binarize
