"""Boards behind SSH, through the user's own OpenSSH client.

Its configuration, keys, agent, jump hosts and known hosts hold as in a terminal. Host-key checking
is never weakened, and nothing is asked: a question would hang a run, so it becomes an error that
names the line to type.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

from edgessl.core.errors import BoardUnreachable, EdgeSSLError
from edgessl.devices.address import SshAddress
from edgessl.devices.channel import Channel, ProcessChannel
from edgessl.devices.plain import last_words, plain
from edgessl.devices.remote import RemoteShell

CONNECT_S = 15  # whole seconds, for each host on the way
ALIVE_S, ALIVE_COUNT = 15, 4  # a server that is silent for a minute is gone
SHARE = os.name != "nt"  # Windows' client cannot share a connection: each command opens its own
FOLDER = "edgessl-ssh-"
LONGEST = 103 - len("xxxxxxxx/c.0123456789abcdef")  # of a socket's path on every system
STALE_S = 3600.0
OPTIONS = (
    "BatchMode=yes",
    # a terminal would mix errors into the output; the rest belongs to sessions that people type in
    "RequestTTY=no",
    "RemoteCommand=none",
    "ClearAllForwardings=yes",
    "ForwardX11=no",
    "ForwardAgent=no",
    "PermitLocalCommand=no",
    "LogLevel=INFO",
)
TEST_KEY = "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"


class OpenSshShell(RemoteShell):
    """A board reached by ``ssh``; the first command's connection carries the others.

    ``EDGESSL_SSH_CONFIG`` names a configuration to use in place of ``~/.ssh/config``.
    """

    def __init__(self, address: SshAddress) -> None:
        super().__init__(str(address))
        self._address = address
        self._folder: Path | None = None

    def _destination(self) -> list[str]:
        """Return the words of the address, as they are typed, too."""
        config, a = os.environ.get("EDGESSL_SSH_CONFIG"), self._address
        return [
            *(["-F", config] if config else []),
            *(["-p", str(a.port)] if a.port else []),
            "--",
            f"{a.user}@{a.host}" if a.user else a.host,
        ]

    def _client(self, *extra: str) -> list[str]:
        limits = (
            f"ConnectTimeout={CONNECT_S}",
            f"ServerAliveInterval={ALIVE_S}",
            f"ServerAliveCountMax={ALIVE_COUNT}",
        )
        options = [word for option in (*limits, *OPTIONS) for word in ("-o", option)]
        return ["ssh", "-T", *extra, *options, *self._destination()]

    def _connect(self, command: str) -> Channel:
        if not shutil.which("ssh"):
            raise EdgeSSLError(
                "no ssh program is on PATH",
                hint="install the OpenSSH client, or use the other way: pip install 'edgessl[ssh]' "
                "and EDGESSL_SSH=asyncssh",
            )
        self._folder = _folder() if SHARE else None
        if self._folder is None:
            return ProcessChannel([*self._client(), command], subprocess.PIPE)
        master = ("-M", "-S", self._socket(), "-o", "ControlPersist=no")
        return ProcessChannel([*self._client(*master), command], subprocess.PIPE)

    def open(self, command: str, stdin: int | IO[bytes]) -> Channel:
        """Run one more command over the connection of the first."""
        shared = ("-o", "ControlMaster=no", "-S", self._socket()) if self._folder else ()
        return ProcessChannel([*self._client(*shared), command], stdin)

    def _socket(self) -> str:
        return f"{self._folder}/c".replace("%", "%%")

    def _let_go(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _explain(self, errors: str, said: str) -> EdgeSSLError:
        typed = shlex.join(["ssh", *(w for w in self._destination() if w != "--")])
        if "IDENTIFICATION HAS CHANGED" in errors:
            return self._changed(errors, typed)
        if "Host key verification failed" in errors:
            return self._unknown(errors, typed)
        for pattern, problem, hint in REFUSALS:
            if found := re.search(pattern, errors):
                seen = " ".join(found[0].split())
                return BoardUnreachable(
                    f"{self.where} {problem}: {seen}", hint=hint.format(ssh=typed, test=TEST_KEY)
                )
        return BoardUnreachable(
            f"{self.where} did not run /bin/sh: {last_words(said, errors)}",
            hint=f"this must print 1: {typed} \"exec /bin/sh -c 'echo 1'\"",
        )

    def _unknown(self, errors: str, typed: str) -> BoardUnreachable:
        """Ask again, talkatively: only then does the client say what key it was shown."""
        words = self._client("-v")
        said = ""
        with contextlib.suppress(subprocess.TimeoutExpired, OSError):
            probe = subprocess.run(
                [*words, "exit"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=4 * CONNECT_S,
            )
            said = probe.stderr.decode("utf-8", "replace")
        keys = re.findall(r"Server host key: (\S+) (SHA256:\S+)", said)
        hosts = re.findall(r"Authenticating to (\S+) as ", said)
        key = plain(" ".join(keys[-1]).encode()) if keys else "its fingerprint did not come"
        host = f" ({plain(hosts[-1].encode())})" if hosts else ""
        ask = " -o StrictHostKeyChecking=ask" if "requested strict checking" in errors else ""
        line = typed.replace("ssh", f"ssh{ask}", 1)
        return BoardUnreachable(
            f"the host key of {self.where}{host} is not known on this machine: {key}",
            hint=f"compare it with what the board prints for `{TEST_KEY}`, then accept it once: "
            f"{line} exit",
        )

    def _changed(self, errors: str, typed: str) -> BoardUnreachable:
        key = re.search(r"SHA256:\S+?(?=\.?\s|\.?$)", errors)
        place = re.search(r"Offending (?:\S+ )?key in (\S+):(\d+)", errors)
        forget = re.search(r"ssh-keygen -f \S+ -R \S+", errors)
        at = f" ({place[1]}, line {place[2]})" if place else ""
        return BoardUnreachable(
            f"the host key of {self.where} is not the one this machine knows{at}; it now shows "
            f"{key[0] if key else 'another one'}",
            hint="if the board was not set up anew, somebody may stand between: do not go on. If "
            f"it was, and shows this key for `{TEST_KEY}`: "
            f"{forget[0] if forget else f'ssh-keygen -R {self._address.host}'} && {typed} exit",
        )


def _folder() -> Path | None:
    """Make the private folder for the socket; None where its path would be too long."""
    for base in dict.fromkeys((tempfile.gettempdir(), "/tmp")):
        if len(f"{base}/{FOLDER}") <= LONGEST:
            for old in Path(base).glob(f"{FOLDER}*"):
                # left empty by a killed process, whose sockets went with their ssh
                with contextlib.suppress(OSError):
                    if time.time() - old.stat().st_mtime > STALE_S:
                        old.rmdir()
            with contextlib.suppress(OSError):
                return Path(tempfile.mkdtemp(prefix=FOLDER, dir=base))
    return None


# what the client wrote: pattern, what that means, what to do
REFUSALS = (
    (
        r"Could not resolve hostname.*",
        "is no known name",
        "check the spelling and the network (many boards answer as NAME.local), or use its number",
    ),
    (
        r"Too many authentication failures.*",
        "refused all keys before the right one",
        "name it in ~/.ssh/config: IdentityFile and IdentitiesOnly yes for this host",
    ),
    (
        r"UNPROTECTED PRIVATE KEY FILE(.|\n)*?too open",
        "cannot be logged in to with that key",
        "chmod 600 the key file",
    ),
    (
        r".*Permission denied \(.*",
        "refused the login",
        "log in with a key: {ssh} must work without a question. Put yours there once with "
        "ssh-copy-id; if the key has a passphrase, ssh-add it first",
    ),
    (
        r".*Connection refused.*",
        "runs no SSH server on that port",
        "start it on the board (Raspberry Pi: sudo raspi-config, Interface Options, SSH; else "
        "sudo systemctl enable --now ssh), or give the port: ssh://user@host:PORT",
    ),
    (
        r".*(timed out|No route to host|Network is unreachable|Host is down).*",
        "does not answer",
        "see that the board is powered and on this network: {ssh} exit",
    ),
    (
        r"Unable to negotiate.*",
        "and this client have no method in common",
        "update the SSH server of the board, or allow its method for this host in ~/.ssh/config",
    ),
    (
        r".*(Connection closed|Connection reset|closed by remote host).*",
        "closed the connection before the login",
        "the server may still be starting, or refuse this machine: {ssh} -v exit",
    ),
    (
        r".*(Bad configuration option|Bad owner or permissions|terminating, \d+ bad conf).*",
        "cannot be tried, as ssh refuses its configuration",
        "mend that file: {ssh} exit tells more",
    ),
    (
        r".*(Permission denied|Read-only file system|cannot create|can't create).*",
        "has no home folder that can be written",
        "this must work: {ssh} 'mkdir -p ~/.edgessl'",
    ),
)
