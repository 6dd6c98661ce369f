"""`edgetk view`: look at an exported graph in netron."""

from __future__ import annotations

import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from edgetk.core.errors import InputError, MissingExtra


def view(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An exported file.")],
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Serve it and print the address.")] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = 0,
) -> None:
    """Open an exported file in netron; Ctrl-C ends it."""
    if not file.is_file():
        raise InputError(f"view: the file must exist, got {file}; edgetk compress writes model.onnx into its run folder")
    try:
        import netron
    except ImportError as error:
        raise MissingExtra("view", "netron", "view") from error
    with redirect_stdout(sys.stderr):  # it says what it does, stdout has the address alone
        host, bound = netron.start(str(file), address=("127.0.0.1", port) if port else None, browse=not no_browser)
    print(f"http://{host}:{bound}", flush=True)
    try:
        while True:
            time.sleep(3600)
    finally:
        netron.stop((host, bound))
