"""Measures on a board through ssh: the agent and the files travel there, the results come back, nothing stays behind."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgetk.core.errors import UsageError
from edgetk.core.figures import Measured, Missing
from edgetk.core.signature import Signature
from edgetk.targets.meters._bench import Item, Settings, run
from edgetk.targets.meters._figures import figures
from edgetk.targets.meters._transport import Address, Ssh


@dataclass(frozen=True)
class SshBoard:
    """A board by its address, `ssh://user@host`, with its own Python and runtime ("onnxruntime" or "tensorrt")."""

    name: str = "ssh"
    address: str = ""
    python: str = "python3"
    runtime: str = "onnxruntime"
    config: Path | None = None
    settings: Settings = field(default_factory=Settings)

    def available(self) -> str | None:
        """None if there is an ssh client here, else why not. Whether the board answers shows when it is asked."""
        return None if shutil.which("ssh") else "the program ssh is not installed"

    def transport(self) -> Ssh:
        """The way to the board. Raises UsageError without an address."""
        if not self.address:
            raise UsageError("ssh: a board must have an address, got none; give --target ssh://user@host or host in its file")
        return Ssh(Address.parse(self.address), self.python, self.config)

    def measure(self, path: Path, signature: Signature, budget_s: float = 2.0) -> Sequence[Measured | Missing]:
        """Run the file on the board. Raises EdgetkError where the connection breaks: the same call goes on from there."""
        item = Item(path.name, path.read_bytes(), signature, self.runtime)
        return figures(run(self.transport(), [item], replace(self.settings, budget_s=budget_s))[0])


METER = SshBoard()
