"""Where files are measured, and which: a board by its address, a file with its signature, an engine with its graph."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgetk.core.errors import InputError, UsageError
from edgetk.core.target import Target

if TYPE_CHECKING:
    from edgetk.core.signature import Signature
    from edgetk.targets.meters._bench import Item, Settings
    from edgetk.targets.meters._transport import Transport

_ENGINES = (".engine", ".plan")


@dataclass(frozen=True)
class Place:
    """Where to measure: a board by its address (`ssh://user@host`), else this machine. `target` is the board as data, if known.

    runtime  "onnxruntime", "tensorrt", or "": the target's own, else what the file says
    python   the board's Python that has the runtime
    config   an ssh configuration instead of the user's own
    """

    target: Target | None = None
    address: str = ""
    runtime: str = ""
    python: str = ""
    config: Path | None = None

    @property
    def name(self) -> str:
        """For the report."""
        return self.target.name if self.target is not None else self.address

    def transport(self) -> Transport:
        """The way there."""
        from edgetk.targets.meters._transport import Address, Local, Ssh

        if not self.address:
            return Local()
        own = self.target.python if self.target is not None else "python3"
        return Ssh(Address.parse(self.address), self.python or own, self.config)

    def runtime_of(self, name: str) -> str:
        """What runs a file there. Raises UsageError for a runtime that no meter has."""
        from edgetk.targets.meters._bench import RUNTIMES

        own = self.target.stack.runtime if self.target is not None else ""
        chosen = self.runtime or own or ("tensorrt" if name.endswith(_ENGINES) else "onnxruntime")
        if chosen not in RUNTIMES:
            raise UsageError(
                f"bench: the runtime must be one of {', '.join(RUNTIMES)}, got {chosen!r}; name one with --runtime"
            )
        return chosen

    def settings(self, settings: Settings) -> Settings:
        """The settings with what the board's file says of its power monitor."""
        return replace(settings, total_rails=self.target.total_rails) if self.target is not None else settings


def place(target: str, host: str = "", runtime: str = "", python: str = "", config: Path | None = None) -> Place:
    """Where `target` (a board's name or file, or ssh://user@host) is measured; `host` is the address of a board by name.

    Raises UsageError for a board that nobody told the address of, and what loading a board raises.
    """
    from edgetk.targets import board

    if target.startswith("ssh://"):
        if host:
            raise UsageError(f"bench: --host must not stand beside --target ssh://…, got {host}; leave one out")
        return _checked(Place(None, target, runtime, python, config))
    return of(board.load(target), host, runtime, python, config)


def of(target: Target, host: str = "", runtime: str = "", python: str = "", config: Path | None = None) -> Place:
    """Where a board is measured. Raises UsageError where nobody told its address."""
    address = host or target.host
    if not address and not target.measurable:
        raise UsageError(
            f"bench: {target.name} must have an address to be measured, got none; give --host ssh://user@host, "
            "or host in its file"
        )
    return _checked(Place(target, address, runtime, python, config))


def _checked(found: Place) -> Place:
    if found.address:
        from edgetk.targets.meters._transport import Address

        Address.parse(found.address)
    return found


def places(targets: Sequence[str], wanted: bool, host: str = "") -> tuple[Place, ...]:
    """Where the targets of a run are measured, none where nobody wants it; `host` is the address of the first.

    Raises UsageError, before any work, where one of them has no address.
    """
    if host and not wanted:
        raise UsageError(f"compress: --host must stand beside --measure, got {host} alone; add --measure")
    addresses = [host, *("" for _ in targets[1:])]
    return tuple(place(text, address) for text, address in zip(targets, addresses, strict=True)) if wanted else ()


def items(paths: Sequence[Path], where: Place) -> list[Item]:
    """Files to measure, each once; where two have one name, they go by their paths. Raises what `item` raises."""
    once = list(dict.fromkeys(paths))
    names = Counter(path.name for path in once)
    return [replace(item(path, where), name=path.name if names[path.name] == 1 else str(path)) for path in once]


def item(path: Path, where: Place) -> Item:
    """A file to measure, with its signature; of an engine they are those of the graph it was built from.

    Raises InputError for a file that cannot be read or says nothing of its inputs.
    """
    from edgetk.targets.meters._bench import Item

    runtime = where.runtime_of(path.name)
    content = _read(path)
    if not path.name.endswith(_ENGINES):
        signature = _signature(path)
        _check_whole(content, path.name)
        return Item(path.name, content, signature, runtime)
    graph = _graph_of(path)
    return Item(path.name, content, _signature(graph), runtime, reference=_read(graph))


def _signature(path: Path) -> Signature:
    from edgetk.export import graph

    return graph.signature_of(graph.load(path))


def _check_whole(content: bytes, name: str) -> None:
    """Raises InputError for weights that lie in other files: one file travels."""
    import onnx

    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in onnx.load_model_from_string(content).graph.initializer):
        raise InputError(f"bench: {name} must hold its own weights, got external data; save it as one file")


def _graph_of(engine: Path) -> Path:
    """The graph an engine was built from: named in the label beside it, else the .onnx file of the same name."""
    label = engine.with_name(engine.name + ".json")
    try:
        named = engine.with_name(json.loads(label.read_text(encoding="utf-8"))["onnx"]) if label.is_file() else None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"bench: {label} must be an engine's label, got {type(error).__name__}; build the engine again"
        ) from error
    graph = named or engine.with_suffix(".onnx")
    if not graph.is_file():
        raise InputError(
            f"bench: {engine.name} must have the graph it was built from beside it, got no {graph.name}; copy it there"
        )
    return graph


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"bench: {path} must be a readable file, got {error.strerror}; check the path") from error
