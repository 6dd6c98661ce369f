"""The commands of `edgetk`, one file each. None of them imports torch, onnx or onnxruntime before it runs."""

from collections.abc import Callable, Mapping
from typing import Any

from edgetk.toolkit.commands.bench import bench
from edgetk.toolkit.commands.calibrate import calibrate
from edgetk.toolkit.commands.compare import compare
from edgetk.toolkit.commands.compress import compress
from edgetk.toolkit.commands.data import data
from edgetk.toolkit.commands.doctor import doctor
from edgetk.toolkit.commands.evaluate import evaluate
from edgetk.toolkit.commands.export import export
from edgetk.toolkit.commands.inspect import inspect
from edgetk.toolkit.commands.listing import listing
from edgetk.toolkit.commands.stream import stream
from edgetk.toolkit.commands.train import train
from edgetk.toolkit.commands.view import view

#: In the order in which `edgetk --help` shows them.
COMMANDS: Mapping[str, Callable[..., Any]] = {
    "compress": compress,
    "train": train,
    "evaluate": evaluate,
    "stream": stream,
    "export": export,
    "inspect": inspect,
    "bench": bench,
    "compare": compare,
    "calibrate": calibrate,
    "view": view,
    "list": listing,
    "data": data,
    "doctor": doctor,
}
