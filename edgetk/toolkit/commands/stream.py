"""`edgetk stream`: listen with a streaming model to a file, a folder, the microphone or stdin, and say what is heard."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgetk.core.errors import UsageError
from edgetk.toolkit.commands import detector_options as options
from edgetk.toolkit.commands import shared

if TYPE_CHECKING:
    from edgetk.toolkit.stream_listen import Heard, Listener
    from edgetk.toolkit.stream_sound import Sound

#: seconds between two pictures of the live view
_EVERY_S = 0.1


def stream(
    model: Annotated[str, typer.Option("--model", "-m", help="A zoo name, x.safetensors, x.stream.onnx.")],
    wav: Annotated[
        Path | None, typer.Option("--wav", metavar="FILE", help="A sound file, 16 kHz mono.", show_default=False)
    ] = None,
    mic: Annotated[bool, typer.Option("--mic", help="The microphone (extra: mic).")] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", metavar="D", help="Every sound file in a folder, each on its own.", show_default=False),
    ] = None,
    words: Annotated[
        str | None, typer.Option("--words", metavar="W,W", help="Words to watch, with commas; default: all labels.")
    ] = None,
    threshold: options.Threshold = None,
    window: options.Window = None,
    hold: options.Hold = None,
    refractory: options.Refractory = None,
    gate: options.UseGate = False,
    runtime: options.Runtime = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="Play files no faster than they sound.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Detections as JSON lines on stdout, a summary at the end.")] = False,
) -> None:
    """Print each word when it is heard. Without --wav, --mic or --dir: raw 16-bit samples, 16 kHz mono, on stdin."""
    import torch

    from edgetk.toolkit.stream import open_stream
    from edgetk.toolkit.stream_listen import Listener

    given = [name for name, value in (("--wav", wav), ("--mic", mic), ("--dir", folder)) if value]
    if len(given) > 1:
        raise UsageError(f"stream: there must be one source, got {' and '.join(given)}; leave one out")
    rule = options.rule_of(threshold, window, hold, refractory, words)
    sounds = _sounds(wav, mic, folder, realtime)
    torch.set_num_threads(1)
    streamed = open_stream(model, runtime or "onnxruntime")
    rule.watched(streamed.labels)
    listener = Listener(streamed, rule, options.gate_of(gate))
    if as_json:
        _lines(listener, sounds)
    elif sys.stdout.isatty():
        _live(listener, sounds)
    else:
        _text(listener, sounds)


def _sounds(wav: Path | None, mic: bool, folder: Path | None, realtime: bool) -> Iterable[Sound]:
    from edgetk.toolkit import stream_sound

    if wav is not None:
        return [stream_sound.file(wav, realtime)]
    if folder is not None:
        return stream_sound.folder(folder, realtime)
    if mic:
        return [stream_sound.microphone()]
    if sys.stdin.isatty():
        raise UsageError(
            "stream: there must be sound, got a terminal on stdin; give --wav FILE, --dir D or --mic, or pipe samples in"
        )
    return [stream_sound.raw(sys.stdin.buffer)]


@contextmanager
def _until_interrupt(sound: Sound) -> Iterator[None]:
    """Ctrl-C ends a sound without an end as a file's end would; it interrupts a file."""
    try:
        yield
    except KeyboardInterrupt:
        if sound.seconds is not None:
            raise


def _heard(listener: Listener, sound: Sound) -> Iterator[list[Heard]]:
    """What each chunk of a sound completes."""
    listener.reset()
    for chunk in sound.chunks:
        yield listener.push(chunk)


def _lines(listener: Listener, sounds: Iterable[Sound]) -> None:
    def line(data: dict[str, Any]) -> None:
        print(json.dumps(data, ensure_ascii=False, allow_nan=False), flush=True)

    names = []
    for sound in sounds:
        names.append(sound.name)
        with _until_interrupt(sound):
            for hit in chain.from_iterable(_heard(listener, sound)):
                line({"kind": "detection", "source": sound.name, **hit.to_json()})
    model = listener.model
    line({"kind": "summary", "model": model.name, "runtime": model.runtime, "sources": names, **listener.to_json()})


def _text(listener: Listener, sounds: Iterable[Sound]) -> None:
    """For a pipe or a file: a line for each word, the costs at the end."""
    from edgetk.core import units
    from edgetk.toolkit.stream_view import clock, numbers

    for sound in sounds:
        print(f"{listener.model.name} in {listener.model.runtime}, listening to {sound.name}", flush=True)
        began, silent = listener.sound_s, True
        with _until_interrupt(sound):
            for hit in chain.from_iterable(_heard(listener, sound)):
                silent = False
                print(f"  {clock(hit.time_s)}  {hit.word:<10} {hit.score:.3f}", flush=True)
        if silent:
            short = listener.sound_s - began < listener.least_s
            print(f"  no word{f'; a decision needs {units.seconds(listener.least_s)} of sound' if short else ''}", flush=True)
    for name, value in numbers(listener):
        print(f"  {name:<11} {value}")


def _live(listener: Listener, sounds: Iterable[Sound]) -> None:
    from time import monotonic

    from rich.live import Live

    from edgetk.toolkit.stream_view import View

    for sound in sounds:
        view = View(listener, sound.name, sound.seconds)
        with Live(view.frame(), console=shared.console(), auto_refresh=False) as live:
            shown = monotonic()
            with _until_interrupt(sound):
                for found in _heard(listener, sound):
                    view.add(found)
                    if found or monotonic() - shown >= _EVERY_S:
                        shown = monotonic()
                        live.update(view.frame(), refresh=True)
            live.update(view.frame(), refresh=True)
