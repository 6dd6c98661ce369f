"""Where the agent runs: on this machine or on a board through ssh, as a folder of files and one command."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import urlsplit

from edgetk.core.errors import EdgetkError, InputError, UsageError

AGENT = "agent.pyz"
#: on a board, below the user's home: one folder for each job, gone when the job is done
HOME = ".edgetk-agent"
#: its presence says that all results of a job were fetched, so that the next run measures anew
FINISHED = "finished"
_CONNECT_S = 15
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class Transport(Protocol):
    """A folder for one job somewhere, and the agent started in it."""

    #: for the report and for errors
    name: str

    def open(self, job: str) -> Mapping[str, str]:
        """Make the folder of `job`; sha256 of each file an interrupted run left there, by name."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        ...

    def get(self, name: str) -> bytes:
        """Read a file."""
        ...

    def run(self, say: Callable[[str], None]) -> int:
        """Run the agent; each line it tells goes to `say`. Its exit status."""
        ...

    def finish(self, keep: bool) -> None:
        """Remove the folder, or with `keep` leave it, marked as done."""
        ...

    def close(self) -> None:
        """End connections. What is in the folder stays, for the next run to go on with."""
        ...


@dataclass
class Local:
    """This machine: a temporary folder and this Python."""

    name: str = "this machine"
    folder: Path = field(default=Path(), init=False)

    def open(self, job: str) -> Mapping[str, str]:
        self.folder = Path(tempfile.mkdtemp(prefix="edgetk-")) / job
        self.folder.mkdir()
        return {}

    def put(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)

    def get(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def run(self, say: Callable[[str], None]) -> int:
        return _follow([sys.executable, str(self.folder / AGENT), str(self.folder)], say)

    def finish(self, keep: bool) -> None:
        if not keep:
            self.close()

    def close(self) -> None:
        if self.folder != Path():
            shutil.rmtree(self.folder.parent, ignore_errors=True)


@dataclass(frozen=True)
class Address:
    """Where a board is: `ssh://user@host:port`. User and port may be left to the ssh configuration."""

    host: str
    user: str = ""
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises UsageError for anything but ssh://[user@]host[:port]."""
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        plain = not (parts.path.strip("/") or parts.query or parts.fragment or parts.password)
        host, user = parts.hostname or "", parts.username or ""
        known = parts.scheme == "ssh" and plain and re.fullmatch(r"[A-Za-z0-9_.:-]+", host) and not host.startswith("-")
        if not known or (user and not _NAME.fullmatch(user)):
            raise UsageError(f"ssh: a board must be ssh://user@host or ssh://user@host:port, got {text!r}; correct it")
        return cls(host, user, port)

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        return f"ssh://{user}{self.host}{f':{self.port}' if self.port else ''}"

    def options(self) -> list[str]:
        """As arguments of ssh."""
        user = ["-l", self.user] if self.user else []
        port = ["-p", str(self.port)] if self.port else []
        return [*user, *port, "--", self.host]


@dataclass
class Ssh:
    """A board through the system's ssh, in one connection. Its host key must be known: an unknown or changed one is an error.

    python   the board's Python; "~/venv/bin/python3" for one of a virtual environment
    config   an ssh configuration instead of the user's own
    """

    address: Address
    python: str = "python3"
    config: Path | None = None
    name: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.name = str(self.address)
        self._folder = ""
        self._sockets: Path | None = None
        self._master: subprocess.Popen[bytes] | None = None

    def open(self, job: str) -> Mapping[str, str]:
        self._connect()
        self._check_python()
        self._folder = f'"$HOME"/{HOME}/{shlex.quote(job)}'
        found = self._ask(
            f"umask 077; mkdir -p {self._folder} && cd {self._folder} || exit 1; "
            f"if [ -e {FINISHED} ]; then rm -f -- *.json *.out {FINISHED}; fi; sha256sum -- * 2>/dev/null || true"
        )
        lines = (line.split(maxsplit=1) for line in found.decode("utf-8", "replace").splitlines())
        return {name.lstrip("*"): digest for digest, name in lines}

    def put(self, name: str, content: bytes) -> None:
        self._ask(f"cd {self._folder} && cat > {name}.part && mv -- {name}.part {name}", content)
        got = self._ask(f"cd {self._folder} && sha256sum -- {name}").decode("ascii", "replace").split()
        if not got or got[0] != sha256(content).hexdigest():
            raise InputError(
                f"{self.name}: {name} must arrive whole, got sha256 {got[:1]}; check the board's disk, run it again"
            )

    def get(self, name: str) -> bytes:
        return self._ask(f"cat -- {self._folder}/{name}")

    def run(self, say: Callable[[str], None]) -> int:
        command = f'cd {self._folder} && exec {_home(self.python)} {AGENT} "$PWD"'
        return _follow([*self._ssh(), *self.address.options(), command], say)

    def finish(self, keep: bool) -> None:
        if keep:
            self._ask(f"touch {self._folder}/{FINISHED}")
        else:
            self._ask(f'rm -rf -- {self._folder}; rmdir "$HOME"/{HOME} 2>/dev/null || true')

    def close(self) -> None:
        if self._master is not None:
            self._master.terminate()
            self._master.wait()
            self._master = None
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None

    def _ssh(self) -> list[str]:
        """ssh with what makes it safe: known host keys only, no questions."""
        config = ["-F", str(self.config)] if self.config is not None else []
        safe = ["StrictHostKeyChecking=yes", "BatchMode=yes", f"ConnectTimeout={_CONNECT_S}", "ServerAliveInterval=15"]
        options = [word for option in (*safe, f"ControlPath={self._sockets}/m") for word in ("-o", option)]
        return ["ssh", *config, *options]

    def _connect(self) -> None:
        if shutil.which("ssh") is None:
            raise InputError(f"{self.name}: the program ssh must be installed, got none; install an OpenSSH client")
        self._sockets = Path(tempfile.mkdtemp(prefix="edgetk-ssh-"))
        with (self._sockets / "said").open("w+b") as said:
            command = [*self._ssh(), "-M", "-N", *self.address.options()]
            self._master = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
            end = time.monotonic() + 2 * _CONNECT_S
            while not (self._sockets / "m").exists():
                if self._master.poll() is not None or time.monotonic() > end:
                    said.seek(0)
                    text = said.read().decode("utf-8", "replace")
                    self.close()
                    raise InputError(_refused(self.name, self.address, text))
                time.sleep(0.02)

    def _check_python(self) -> None:
        program = "import sys; print('%d.%d' % sys.version_info[:2])"
        found = self._ask(f"{_home(self.python)} -c {shlex.quote(program)} 2>&1 || true").decode("utf-8", "replace").strip()
        version = tuple(int(n) for n in found.split(".")) if re.fullmatch(r"\d+\.\d+", found) else ()
        if version < (3, 8):
            self.close()
            raise InputError(
                f"{self.name}: {self.python} must be Python 3.8 or newer, got {found[:100] or 'nothing'}; "
                "name another with --python"
            )

    def _ask(self, command: str, content: bytes | None = None) -> bytes:
        command_line = [*self._ssh(), *self.address.options(), command]
        done = subprocess.run(command_line, input=content if content is not None else b"", capture_output=True, check=False)
        if done.returncode:
            text = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise EdgetkError(
                f"{self.name}: must do what it is asked over ssh, got status {done.returncode}: "
                f"{text[-1] if text else 'no text'}; the same command goes on from where it stopped"
            )
        return done.stdout


def _home(program: str) -> str:
    """A program for the board's shell: quoted, but for a leading ~/."""
    return f'"$HOME"/{shlex.quote(program[2:])}' if program.startswith("~/") else shlex.quote(program)


def _refused(name: str, address: Address, text: str) -> str:
    """Why a connection was refused, and what to do."""
    last = text.strip().splitlines()[-1] if text.strip() else "no answer"
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in text:
        return f"{name}: its host key must be the known one, got another; find out why before you run ssh-keygen -R"
    if "Host key verification failed" in text:
        return (
            f"{name}: its host key must be known, got an unknown one; connect once by hand and check the fingerprint it shows"
        )
    if "Permission denied" in text:
        return f"{name}: a key must open it without a password, got {last}; set one up (ssh-copy-id)"
    return f"{name}: must answer, got {last}; check that {address.host} is on and reachable"


def _follow(command: Sequence[str], say: Callable[[str], None]) -> int:
    """Run the agent with a standard input that stays open: when this process ends, so does the agent."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        try:
            _lines(process.stderr, say)
        finally:
            process.stdin.close()
            if process.poll() is None:
                try:
                    process.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    process.kill()
    return process.returncode


def _lines(stream: IO[bytes], say: Callable[[str], None]) -> None:
    for line in stream:
        say(line.decode("utf-8", "replace").rstrip("\n"))
