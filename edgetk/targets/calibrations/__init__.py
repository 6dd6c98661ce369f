"""Calibrations of devices: kernel costs that were fitted on them, as JSON files, and the one that fits this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgetk.core.errors import InputError
from edgetk.core.target import Target

_FOLDER = Path(__file__).parent
#: 2: each cache level adds to the costs of those before it; 3: pieces, panels, caches that begin to miss before they are full
SCHEMA_VERSION = 3


def for_processor(name: str, caches: tuple[int, ...]) -> Path | None:
    """The built-in calibration of a processor of that name with caches of those bytes; None where there is none.

    Processors of several generations have been seen to go by one name in virtual machines. Where the operating system tells no
    caches (), the name decides.
    """
    for file in sorted(_FOLDER.glob("*.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["device"] == name and caches in ((), tuple(data["cache_bytes"])):
            return file
    return None


def read(path: Path) -> dict[str, Any]:
    """A calibration that `edgetk calibrate host` wrote. Raises InputError where it is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"calibration {path}: must be a readable file, got {error.strerror}; check the path") from error
    except ValueError as error:
        raise InputError(f"calibration {path}: must be JSON, got {error}; run edgetk calibrate host again") from error
    if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION or "kernels" not in data:
        raise InputError(
            f"calibration {path}: must be what this edgetk's calibrate host writes, got another JSON file; "
            "run edgetk calibrate host again"
        )
    return data


def with_share(target: Target, share: float) -> Target:
    """The board with a part of its last cache: the rest holds what other cores use."""
    if not target.caches:
        return target
    *nearer, (size, speed) = target.caches
    return replace(target, caches=(*nearer, (size * share, speed)))


def applied(target: Target, data: Mapping[str, Any]) -> Target:
    """The board with the kernel costs of a calibration, its caches, and what it was found to be off by."""
    caches = tuple((float(size), 0.0) for size in data["cache_bytes"])
    known = {"source": data["source"], "errors": data.get("errors", {})}
    found = replace(target, kernels=data["kernels"], caches=caches, calibration={**target.calibration, **known})
    return with_share(found, data.get("last_cache_share", 1.0))
