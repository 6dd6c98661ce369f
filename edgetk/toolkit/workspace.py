"""The run folder: the only module that writes the files of a run, each one whole or not at all.

<root>/<model>-<target>-<hash12>/
    recipe.toml  state.json  report.json  report.html  model.onnx  …
    checkpoints/  testdata/
    scratch/      emptied when the run folder is opened
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from edgetk.core.errors import EdgetkError, InputError, UsageError

_TEMPORARY = ".edgetk-tmp-"
_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Workspace:
    """One run folder. Every `name` is relative to it and may not leave it."""

    folder: Path

    @classmethod
    def open(cls, root: Path, model: str, target: str, identity: str) -> Workspace:
        """The folder of one run below `root`, made if need be. `identity` is the recipe's hash.

        Raises InputError where it cannot be made or written.
        """
        name = "-".join((_slug(model), _slug(target), identity[:12]))
        return cls.at(root / name)

    @classmethod
    def at(cls, folder: Path) -> Workspace:
        """A given folder as workspace, made if need be. Raises InputError where it cannot be made or written."""
        workspace = cls(folder)
        workspace._make(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"workspace: {folder} must be writable, got no permission; choose another folder")
        return workspace

    def path(self, name: str) -> Path:
        """Where `name` is. Raises UsageError for a name that leaves the folder, also by a symbolic link."""
        path = self.folder / name
        root = self.folder.resolve()
        if Path(name).is_absolute() or not name or not path.resolve().is_relative_to(root) or path.resolve() == root:
            raise UsageError(f"workspace: a file name must stay inside {self.folder}, got {name!r}; use a relative name")
        return path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; leftovers of a broken run are removed. Raises UsageError if another run has it.

        The lock goes away with the process, however it ends.
        """
        lock = self.path(".lock")
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _explain(lock, error) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.read(handle, 64).decode(errors="replace").strip() or "unknown"
                raise UsageError(
                    f"workspace: {self.folder} must belong to one run at a time, got a second one (the first is process "
                    f"{holder}); wait for it or choose another folder"
                ) from error
            except OSError as error:
                raise _explain(lock, error) from error
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            self._sweep()
            yield
        finally:
            os.close(handle)

    def write(self, name: str, content: bytes) -> str:
        """Write a file whole or not at all, and give its SHA-256. What begins with `#!` can be executed.

        A file of that name that was there before stays as it is if this fails. Raises InputError (no permission, not a
        folder) or EdgetkError (disk full, other faults of the file system).
        """
        path = self.path(name)
        self._make(path.parent)
        temporary = ""
        try:
            handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o755 if content.startswith(b"#!") else 0o644)
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except OSError as error:
            _remove(temporary)
            raise _explain(path, error) from error
        except BaseException:  # Ctrl-C between two lines leaves no litter either
            _remove(temporary)
            raise
        return sha256(content).hexdigest()

    def write_text(self, name: str, text: str) -> str:
        """Write text as UTF-8."""
        return self.write(name, text.encode())

    def write_json(self, name: str, data: Any) -> str:
        """Write plain data as JSON; NaN and infinity are refused (they are not JSON)."""
        return self.write_text(name, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def read(self, name: str) -> bytes:
        """A file of the run. Raises InputError."""
        path = self.path(name)
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(
                f"workspace: {path} must be readable, got: {error.strerror}; run again without --resume"
            ) from error

    def read_json(self, name: str) -> Any:
        """A JSON file of the run. Raises InputError."""
        try:
            return json.loads(self.read(name))
        except ValueError as error:
            path = self.path(name)
            raise InputError(f"workspace: {path} must be JSON, got: {error}; run again without --resume") from error

    def has(self, name: str) -> bool:
        """True if the file is there."""
        return self.path(name).is_file()

    def checkpoint(self, index: int, name: str, content: bytes) -> str:
        """Write the model after pass `index` and give its name in the folder. Checkpoints of other passes stay."""
        path = f"checkpoints/{index:02d}-{_slug(Path(name).stem)}{Path(name).suffix}"
        self.write(path, content)
        return path

    def clear(self, name: str) -> None:
        """Remove a file or folder of the run, if it is there."""
        path = self.path(name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _explain(folder, error) from error

    def _sweep(self) -> None:
        for leftover in self.folder.rglob(f"{_TEMPORARY}*"):
            leftover.unlink(missing_ok=True)
        self.clear("scratch")


def _slug(text: str) -> str:
    """`text` as a part of a file name: letters, digits, dot, underscore, dash; never hidden, never a parent folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")[:64] or "x"


def _remove(path: str) -> None:
    if path:
        Path(path).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explain(path: Path, error: OSError) -> EdgetkError:
    if error.errno in _FULL:
        return EdgetkError(
            f"workspace: {path} must fit on the disk, got: {error.strerror}; free some space and continue with --resume "
            "(what was written before is intact)"
        )
    return InputError(f"workspace: {path} must be writable, got: {error.strerror}; choose another folder")
