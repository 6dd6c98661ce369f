"""Linear layers whose matrix is a small dense one times a sparse one with as many non-zeros in each line.

Source: DSFormer, Chand, Prabhu & Kumar 2023, arXiv:2312.13211; the layout is a design choice (docs/dsformer.md). For y = x W
with W (n, m), the dense factor D spans the shorter axis:

    m >= n   W = D S,      D (n, r), S (r, m) with s non-zeros in each column    y = (x D) S       "outputs": a line per output
    n > m    W = S^T D^T,  D (m, r), S (r, n) with s non-zeros in each column    y = (x S^T) D^T   "inputs":  a line per input

A line is a column of S: `values` (lines, s) and `indices` (lines, s) (ELL format: no row pointers).
`edgetk.models.layers.dense_sparse_sizes` counts what they take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgetk.core.errors import PreconditionError
from edgetk.models.layers import operators
from edgetk.models.layers.dense_sparse_sizes import Group, Side, index_bits, most_nonzeros


class SparseFactor(nn.Module):
    """A sparse matrix (lines, width) with `nonzeros` in each line; in a file, indices take `bits` each.

    "outputs": z (…, width) -> (…, lines);  "inputs": z (…, lines) -> (…, width). In an exported graph it is one operator,
    `edgetk::DenseSparseMatMul` or, of inputs, `edgetk::DenseSparseMatMulByRow`.
    """

    def __init__(self, lines: int, width: int, nonzeros: int, side: Side, grouped: bool = False) -> None:
        super().__init__()
        self.lines, self.width, self.nonzeros, self.side, self.grouped = lines, width, nonzeros, side, grouped
        self.bits = index_bits(width, nonzeros, grouped)
        self.values = nn.Parameter(torch.zeros(lines, nonzeros))
        first = torch.arange(nonzeros) * (width // nonzeros if grouped else 1)
        kind = torch.uint8 if width <= 256 else torch.int16
        self.register_buffer("indices", first.expand(lines, nonzeros).to(kind).contiguous())
        self.indices: Tensor

    def coefficients(self) -> Tensor:
        """The values as numbers to multiply with: (lines, s)."""
        return self.values

    def matrix(self) -> Tensor:
        """All of it, zeros included: (lines, width)."""
        values = self.coefficients()
        return values.new_zeros(self.lines, self.width).scatter(1, self.indices.long(), values)

    def forward(self, z: Tensor) -> Tensor:
        if operators.wanted() and z.dtype == torch.float32:
            outputs = self.lines if self.side == "outputs" else self.width
            kind, stored = self._stored_values()
            name = ("DenseSparseMatMul" if self.side == "outputs" else "DenseSparseMatMulByRow") + kind
            return operators.node(name, (z, *stored), like=z.new_empty(*z.shape[:-1], outputs), width=self.width)
        matrix = self.matrix().to(z.dtype)
        return z @ (matrix.T if self.side == "outputs" else matrix)

    def _stored_values(self) -> tuple[str, tuple[Tensor, ...]]:
        """What the operator's name ends in, and its constants."""
        return "", (self.values, self.indices)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "indices"] = pack(self._stored(), self.bits)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        packed = state_dict.get(prefix + "indices")
        if packed is not None:
            unpacked = unpack(packed, self.bits, self.lines * self.nonzeros).reshape(self.lines, self.nonzeros)
            state_dict = {**state_dict, prefix + "indices": (unpacked + self._offsets()).to(self.indices.dtype)}
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _offsets(self) -> Tensor:
        """Where each coefficient's group begins: (s,), zeros without groups."""
        step = self.width // self.nonzeros if self.grouped else 0
        return torch.arange(self.nonzeros, device=self.indices.device) * step

    def _stored(self) -> Tensor:
        return self.indices.long() - self._offsets()

    def extra_repr(self) -> str:
        return f"lines={self.lines}, width={self.width}, nonzeros={self.nonzeros}, side={self.side}"


class DenseSparseLinear(nn.Module):
    """A linear layer as `dense` times `sparse`: x (…, inputs) -> (…, outputs). The bias is the layer's own.

    `owner` is the layer whose dictionary it shares, for matrices that read one input; then it has none of its own. Only
    "outputs" can be shared.
    """

    def __init__(self, inputs: int, outputs: int, group: Group, bias: bool, owner: DenseSparseLinear | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features, self.side = inputs, outputs, group.side
        r, s = group.rank, group.nonzeros
        if group.side == "outputs":
            self.sparse = SparseFactor(outputs, r, s, "outputs", group.grouped)
            made = nn.Linear(inputs, r, bias=False)
        else:
            self.sparse = SparseFactor(inputs, r, s, "inputs", group.grouped)
            made = nn.Linear(r, outputs, bias=False)
        # a tuple, so that the owner's weights are not listed twice
        self._owner = (owner,) if owner is not None else ()
        if owner is None:
            self.dense = made
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    @property
    def owner(self) -> DenseSparseLinear | None:
        """The layer whose dictionary it shares; None where it has its own."""
        return self._owner[0] if self._owner else None

    @property
    def dictionary(self) -> nn.Module:
        """The dense factor as a layer, its own or its owner's."""
        return self._owner[0].dense if self._owner else self.dense

    def forward(self, x: Tensor) -> Tensor:
        y = self.sparse(self.dictionary(x)) if self.side == "outputs" else self.dictionary(self.sparse(x))
        biased: Tensor = y if self.bias is None else y + self.bias
        return biased

    @torch.no_grad()
    def weight(self) -> Tensor:
        """The matrix that it stands for, as `nn.Linear` has it: (outputs, inputs). Only with a float dictionary."""
        dense: Any = self.dictionary
        if self.side == "outputs":
            product: Tensor = self.sparse.matrix() @ dense.weight
        else:
            product = dense.weight @ self.sparse.matrix().T
        return product

    @torch.no_grad()
    def initialise(self) -> None:
        """Random factors for training from scratch: outputs as large as those of a fresh BERT layer."""
        s, r = self.sparse.nonzeros, self.sparse.width
        if not self.sparse.grouped:
            self.sparse.indices.copy_(torch.rand(self.sparse.lines, r).argsort(1)[:, :s].sort(1).values)
        if not self._owner:
            nn.init.normal_(self.dense.weight, std=r**-0.5)
        sums = s if self.side == "outputs" else r * s / self.sparse.lines
        nn.init.normal_(self.sparse.values, std=0.02 * (r / max(sums, 1.0)) ** 0.5)


def pack(numbers: Tensor, bits: int) -> Tensor:
    """Non-negative integers, `bits` bits each, the lowest bit first, as bytes (uint8)."""
    flags = (numbers.flatten().long()[:, None] >> torch.arange(bits, device=numbers.device)) & 1
    flags = nn.functional.pad(flags.flatten(), (0, -flags.numel() % 8)).reshape(-1, 8)
    return (flags << torch.arange(8, device=numbers.device)).sum(1).to(torch.uint8)


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The `count` integers (int64) that `pack` made the bytes of."""
    flags = (packed.long()[:, None] >> torch.arange(8, device=packed.device)) & 1
    flags = flags.flatten()[: count * bits].reshape(count, bits)
    return (flags << torch.arange(bits, device=packed.device)).sum(1)


def plan(body: nn.Module, layers: Sequence[str], ratio: float, rank: int | None = None, grouped: bool = False) -> Group:
    """Sizes for the linear layers `layers`, which read one input, at `ratio`: with `rank` atoms, or two thirds of the most.

    Raises PreconditionError where no line could have a coefficient.
    """
    matrices: list[Any] = [body.get_submodule(name) for name in layers]
    n, m = int(matrices[0].in_features), sum(int(layer.out_features) for layer in matrices)
    side: Side = "outputs" if m >= n else "inputs"
    short, lines = (n, m) if m >= n else (m, n)
    if rank is None:
        rank = max(1, min(short, int(2 / 3 * min(short, lines / ratio))))
    s = most_nonzeros(short, lines, rank, ratio, grouped)
    if s < 1:
        raise PreconditionError(
            f"dense-sparse: {', '.join(layers)} ({n} x {m}) must have room for a coefficient a line at ratio {ratio:g} with "
            f"{rank} atoms, got none; ask for a smaller ratio"
        )
    return Group(tuple(layers), side, short, lines, rank, s, grouped)


def install(body: nn.Module, groups: Sequence[Group]) -> None:
    """Put empty `DenseSparseLinear` in the places of `groups`, in `body` itself; the factors come afterwards."""
    for group in groups:
        owner: DenseSparseLinear | None = None
        for name in group.layers:
            old: Any = body.get_submodule(name)
            made = DenseSparseLinear(old.in_features, old.out_features, group, old.bias is not None, owner)
            body.set_submodule(name, made)
            owner = owner or made


def groups_of(body: nn.Module) -> tuple[Group, ...]:
    """The groups that `install` put into `body`, in order."""
    layers = {m: name for name, m in body.named_modules() if isinstance(m, DenseSparseLinear)}
    sharing: dict[DenseSparseLinear, list[DenseSparseLinear]] = {}
    for layer in layers:
        sharing.setdefault(layer.owner or layer, []).append(layer)
    made = []
    for owner, members in sharing.items():
        sparse = owner.sparse
        lines = sum(member.sparse.lines for member in members)
        short = owner.in_features if owner.side == "outputs" else owner.out_features
        names = tuple(layers[member] for member in members)
        made.append(Group(names, owner.side, short, lines, sparse.width, sparse.nonzeros, sparse.grouped))
    return tuple(made)


@torch.no_grad()
def fill(body: nn.Module, group: Group, dictionary: Tensor, values: Tensor, rows: Tensor) -> None:
    """Give the layers of a group their factors: D (short, r), and of S its values and rows (lines, s), rows ascending."""
    begin = 0
    for name in group.layers:
        layer: Any = body.get_submodule(name)
        end = begin + layer.sparse.lines
        layer.sparse.values.copy_(values[begin:end])
        layer.sparse.indices.copy_(rows[begin:end])
        begin = end
    owner: Any = body.get_submodule(group.layers[0])
    owner.dense.weight.copy_(dictionary.T if group.side == "outputs" else dictionary)


__all__ = ["DenseSparseLinear", "SparseFactor", "fill", "groups_of", "install", "pack", "plan", "unpack"]
