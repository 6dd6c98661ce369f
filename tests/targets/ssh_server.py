"""A real SSH server on loopback: its own port, host key and user key, all in one folder; nothing of this machine is used."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("sshd", "ssh", "ssh-keygen")


def absent() -> str | None:
    """Why there can be no server here, None where there can."""
    missing = [name for name in PROGRAMS if _program(name) is None]
    return f"no {', '.join(missing)} here (Debian: openssh-server, openssh-client)" if missing else None


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass(frozen=True)
class Server:
    """`config` is what `ssh -F` takes; `home` is where the remote user's files are."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        return self.folder / "config"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def home(self) -> Path:
        return self.folder / "home"


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """A server for the present user, with `home` as the home of what it runs."""
    for name in ("host", "user"):
        key = [_need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(key, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = Server(folder, free.getsockname()[1])
    server.home.mkdir()
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    (folder / "authorized_keys").chmod(0o600)
    public = (folder / "host.pub").read_text().split()[:2]
    server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {' '.join(public)}\n")
    server.config.write_text(
        f"IdentityFile {folder}/user\nIdentitiesOnly yes\nUserKnownHostsFile {server.known_hosts}\nGlobalKnownHostsFile none\n"
    )
    (folder / "sshd_config").write_text(
        f"HostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\nListenAddress 127.0.0.1\nPort {server.port}\n"
        f"PidFile {folder}/pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        f"SetEnv HOME={server.home}\nAcceptEnv none\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself in before a user is known
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([_need("sshd"), "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
        try:
            _wait(server, process)
            yield server
        finally:
            process.terminate()
            process.wait()


def _need(name: str) -> str:
    found = _program(name)
    assert found is not None
    return found


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    for _ in range(500):
        assert process.poll() is None, (server.folder / "log").read_text()
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", server.port)) == 0:
                return
        time.sleep(0.01)
    raise AssertionError("the server does not listen")
