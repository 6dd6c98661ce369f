"""Splits of a data set as Parquet files: which files there are, and their columns as lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgetk.core.errors import InputError, MissingExtra


def files(folder: Path, split: str) -> list[Path]:
    """The Parquet files of a split in order: <split>.parquet or <split>_<n>.parquet."""
    return [path for path in (folder / f"{split}.parquet",) if path.is_file()] + sorted(folder.glob(f"{split}_*.parquet"))


def table(folder: Path, split: str, columns: Sequence[str], who: str = "speech-commands") -> dict[str, list[Any]]:
    """Columns of a split as lists. Raises InputError where files or columns are missing, MissingExtra without pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(who, "pyarrow", "parquet") from error
    paths = files(folder, split)
    if not paths:
        raise InputError(f"{folder}: must hold {split}.parquet or {split}_<n>.parquet, got neither; run: edgetk data")
    joined: dict[str, list[Any]] = {name: [] for name in columns}
    for path in paths:
        try:
            missing = set(columns) - set(pyarrow.parquet.read_schema(path).names)
            if missing:
                raise InputError(
                    f"{path}: must have the columns {', '.join(columns)}, got no {', '.join(sorted(missing))}; add them"
                )
            part = pyarrow.parquet.read_table(path, columns=list(columns))
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise InputError(f"{path}: must be a Parquet file, got {error}; fetch it again") from error
        for name in columns:
            joined[name] += part[name].to_pylist()
    return joined


__all__ = ["files", "table"]
