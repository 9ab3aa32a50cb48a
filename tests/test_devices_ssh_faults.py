"""Everything that goes wrong between a workstation and its board: what is said, what is left.

Each fault ends in a message that says what to do, the right exit code, and a clean board.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from sshd import Sshd, Wire, children_of, free_port, wait_for

from edgessl.core.errors import BoardUnreachable, DiskFull, EdgeSSLError
from edgessl.devices import connection, openssh, remote, remote_stream
from edgessl.devices.address import open_shell
from edgessl.devices.base import Board

pytestmark = [pytest.mark.slow, pytest.mark.ssh]
CLIENTS = ["openssh", "asyncssh"]


@pytest.fixture(scope="module")
def server():
    server = Sshd()
    yield server
    server.close()


@pytest.fixture
def reach(server, monkeypatch):
    """Open shells to hosts of the client's configuration; the board must be clean afterwards."""
    monkeypatch.setenv("EDGESSL_SSH_CONFIG", str(server.config))
    opened = []

    def reach(address="board", client="openssh", owner="edgessl-sh"):
        if client == "asyncssh":
            pytest.importorskip("asyncssh", reason="the other client: pip install asyncssh")
        monkeypatch.setenv("EDGESSL_SSH", client)
        server.new_home(owner)
        opened.append(open_shell(Board("ssh", address)))
        return opened[-1]

    yield reach
    for shell in opened:
        shell.close()
    assert server.is_clean(), (server.programs(), server.work_folders())


@pytest.fixture(params=CLIENTS)
def client(request):
    return request.param


@pytest.fixture
def shell(reach, client):
    shell = reach(client=client)
    shell.run(["true"], timeout_s=20)
    return shell


@pytest.fixture
def wire(server):
    """A connection that can be cut; the configuration leads through it."""
    wire = Wire(server.port)
    server.write_config(wire.port)
    yield wire
    wire.close()
    server.write_config()


def running(server, text):
    return any(text in line for line in server.programs())


def unreachable(shell):
    with pytest.raises(BoardUnreachable) as caught:
        shell.run(["true"], timeout_s=60)
    assert caught.value.exit_code == 4
    return caught.value


def is_lost(shell):
    try:
        return not shell.workdir
    except BoardUnreachable as error:
        return "was lost" in error.message


@pytest.mark.parametrize("place", ["tool", "~/runtimes/x/tool"])
def test_a_copy_that_is_cut_leaves_no_file_that_could_be_run(
    reach, client, server, wire, tmp_path, place
):
    shell = reach(client=client)
    target = place.replace("~", shell.home)
    (tmp_path / "tool").write_bytes(os.urandom(8_000_000))
    wire.cut_at(wire.sent + 2_000_000)
    with pytest.raises(BoardUnreachable, match=r"was lost while tool .8000000 bytes. was copied"):
        shell.put(tmp_path / "tool", target)
    assert server.is_clean()
    assert [p for p in server.home.rglob("*") if p.is_file()] == []


def test_content_that_changes_on_the_way_is_not_kept(shell, tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(os.urandom(100_000))
    monkeypatch.setattr("edgessl.core.files.sha256_file", lambda path: "0" * 64)
    with pytest.raises(EdgeSSLError, match=r"cannot copy a to b on .*: damaged"):
        shell.put(tmp_path / "a", "b")
    assert shell.run(["ls"], timeout_s=20) == ""


def test_a_lost_connection_says_how_far_it_came_and_ends_what_ran(shell, server, client):
    script = "trap '' TERM; echo one; echo two; sleep 611; sleep 611"
    with shell.start(["sh", "-c", script]) as stream:
        assert stream.read_line(20) == "one"
        assert stream.read_line(20) == "two"
        wait_for(lambda: running(server, "sleep 611"))
        server.cut()
        with pytest.raises(BoardUnreachable) as caught:
            stream.read_line(60)
    assert caught.value.exit_code == 4
    assert "was lost after 2 lines of sh: " in caught.value.message
    assert "run the command again" in caught.value.hint
    assert server.is_clean()
    assert "was lost" in unreachable(shell).message  # and not opened again behind one's back


def test_a_connection_lost_under_a_command_is_no_failure_of_the_command(shell, server):
    timer = threading.Timer(1, server.cut)
    timer.start()
    with pytest.raises(BoardUnreachable, match="was lost while sleep ran"):
        shell.run(["sleep", "612"], timeout_s=60)
    assert server.is_clean()


def test_a_server_that_falls_silent_is_noticed(server, reach, client, monkeypatch):
    for module in ("openssh", "ssh_async"):
        monkeypatch.setattr(f"edgessl.devices.{module}.ALIVE_S", 1)
        monkeypatch.setattr(f"edgessl.devices.{module}.ALIVE_COUNT", 2)
    shell = reach(client=client)
    with shell.start(["cat"]) as stream:
        stream.send("one")
        assert stream.read_line(20) == "one"
        stopped = server.sessions()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(BoardUnreachable, match="after 1 lines of cat"):
                stream.read_line(60)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)


WORKSTATION = """
import sys, time
from edgessl.devices.address import open_shell
from edgessl.devices.base import Board
shell = open_shell(Board("ssh", "board"))
with shell.start(["sh", "-c", "trap '' TERM; echo on; sleep 613; sleep 613"]) as stream:
    print(stream.read_line(20), flush=True)
    if sys.argv[1] == "exit":
        sys.exit(3)  # and nobody calls close()
    time.sleep(600)
"""


@contextmanager
def workstation(server, client, what):
    env = os.environ | {
        "EDGESSL_SSH": client, "EDGESSL_SSH_CONFIG": str(server.config),
        "TMPDIR": str(server.new_folder("t")),
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", WORKSTATION, what], env=env, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"on\n"
        assert running(server, "sleep 613")
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_killed_workstation_leaves_a_clean_board(server, client):
    server.new_home()
    with workstation(server, client, "wait") as process:
        clients = children_of(process.pid)
        process.kill()
        process.wait()
        assert server.is_clean()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in clients))
    # ssh removed its socket; an empty folder waits for the next run's sweep
    assert [p for p in (server.folder / "t").rglob("*") if not p.is_dir()] == []


def test_a_workstation_that_just_exits_leaves_nothing_anywhere(server, client):
    server.new_home()
    with workstation(server, client, "exit") as process:
        assert process.wait(60) == 3
        assert server.is_clean()
    assert list((server.folder / "t").iterdir()) == []


def test_a_workstation_that_falls_silent_leaves_a_clean_board(server, reach, monkeypatch):
    """The network is gone without a word: the server still believes in its connection."""
    monkeypatch.setattr(connection, "SILENCE_S", 1)
    monkeypatch.setattr(connection, "BEAT_S", 0.2)
    shell = reach()
    with shell.start(["sh", "-c", "trap '' TERM; echo on; sleep 614; sleep 614"]) as stream:
        assert stream.read_line(20) == "on"
        time.sleep(3)  # signs of life go through
        assert running(server, "sleep 614")
        clients = [pid for pid in children_of(os.getpid(), named="ssh")]
        for pid in clients:
            os.kill(pid, signal.SIGSTOP)
        try:
            assert server.is_clean()
        finally:
            for pid in clients:
                os.kill(pid, signal.SIGCONT)


def test_what_a_power_cut_left_is_swept_by_the_next_session(server, reach):
    first = reach()
    left = Path(first.workdir)
    server.kill_all()
    assert left.exists()
    wait_for(lambda: is_lost(first))
    second = open_shell(Board("ssh", "board"))
    third = open_shell(Board("ssh", "board"))
    try:
        assert Path(second.workdir).exists()
        assert not left.exists()
        assert Path(third.workdir).exists()  # the living are let alone
        assert Path(second.workdir).exists()
    finally:
        second.close()
        third.close()


def test_a_work_folder_that_somebody_removed_is_told(shell):
    subprocess.run(["rm", "-rf", shell.workdir], check=True)
    assert "somebody removed" in unreachable(shell).message


def test_a_full_board_is_told_and_left_clean(server, client, reach, tmp_path):
    (tmp_path / "big").write_bytes(os.urandom(3_000_000))
    (tmp_path / "little").write_bytes(b"x")
    shell = reach(client=client)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", str(server.home)]
    subprocess.run(mount, check=True)
    try:
        server.give("edgessl-sh")
        shell.put(tmp_path / "little", "little")
        with pytest.raises(DiskFull, match=r"no space left on .* for big: big has 3\.0 MB") as full:
            shell.put(tmp_path / "big", "big")
        assert full.value.exit_code == 1
        assert "home folder of the board" in full.value.hint
        assert shell.run(["ls"], timeout_s=20) == "little\n"
        shell.close()
        assert server.is_clean()
        # so full that not even a folder can be made
        fill(server.home)
        other = open_shell(Board("ssh", "board"))
        with pytest.raises(DiskFull, match=r"no space left on .* for ~/\.edgessl"):
            other.run(["true"], timeout_s=20)
        assert server.is_clean()
    finally:
        subprocess.run(["umount", "-l", str(server.home)], check=True)


def fill(folder):
    """Leave room for not one more byte, and not one more file."""
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 4096)
    with contextlib.suppress(OSError):
        for number in range(100_000):
            (folder / f"f{number}").touch()


def fingerprint(key):
    told = subprocess.run(["ssh-keygen", "-lf", key], check=True, capture_output=True, text=True)
    return told.stdout.split()[1]


def test_an_unknown_host_key_is_shown_and_never_taken(server, reach, client):
    error = unreachable(reach("stranger", client))
    assert "is not known on this machine: ssh-ed25519 SHA256:" in error.message
    assert fingerprint(server.folder / "host.pub") in error.message
    if client == "openssh":
        assert error.hint.endswith(f"ssh -F {server.config} stranger exit")
    else:
        key = " ".join((server.folder / "host.pub").read_text().split()[:2])
        assert f"echo '[127.0.0.1]:{server.port} {key}' >> ~/.ssh/known_hosts" in error.hint
    assert (server.folder / "empty").read_text() == ""


def test_the_key_of_an_unknown_jump_host_is_shown(server, reach):
    text = server.config.read_text()
    server.config.write_text(
        text.replace("Host jump\n", f"Host jump\n  UserKnownHostsFile {server.folder}/empty\n")
    )
    try:
        error = unreachable(reach("by-jump"))
        assert fingerprint(server.folder / "host.pub") in error.message
        assert f"127.0.0.1:{server.port}" in error.message
    finally:
        server.write_config()


def test_a_changed_host_key_stops_everything(server, reach, client):
    known = server.known.read_text()
    server.stop()
    server.new_key("host")
    try:
        server.start()
        server.known.write_text(known)
        error = unreachable(reach(client=client))
        assert "is not the one this machine knows" in error.message
        assert fingerprint(server.folder / "host.pub") in error.message
        assert "do not go on" in error.hint
        if client == "openssh":
            forget = f"ssh-keygen -f '{server.known}' -R '[127.0.0.1]:{server.port}'"
            assert forget in error.hint.replace('"', "'")
        assert server.known.read_text() == known
    finally:
        server.write_config()


def test_refusals_have_their_own_messages(server, reach, client):
    error = unreachable(reach("refused", client))
    assert "refused the login" in error.message
    assert "ssh-copy-id" in error.hint
    error = unreachable(reach("nowhere", client))
    assert "is no known name" in error.message
    error = unreachable(reach(f"ssh://board:{free_port()}", client))
    assert "runs no SSH server on that port" in error.message


def test_a_machine_that_takes_the_connection_and_says_nothing(reach, client, monkeypatch):
    for module in ("openssh", "ssh_async"):
        monkeypatch.setattr(f"edgessl.devices.{module}.CONNECT_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as ears:
        error = unreachable(reach(f"ssh://board:{ears.getsockname()[1]}", client))
    assert "does not answer" in error.message


def test_a_machine_that_speaks_something_else(reach, client):
    with socket.create_server(("127.0.0.1", 0)) as ears:

        def answer():
            caller, _ = ears.accept()
            caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            caller.close()

        threading.Thread(target=answer, daemon=True).start()
        error = unreachable(reach(f"ssh://board:{ears.getsockname()[1]}", client))
    assert "Traceback" not in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({".bashrc": "echo This account is not available; exit 1"}, "did not run /bin/sh: This"),
        ({".bashrc": "sleep 615"}, "its login shell said nothing of ours for 2 s"),
        ({".bashrc": "yes no | cat; exit"}, "its login shell said nothing of ours for 2 s"),
        ({".edgessl": ""}, "has no home folder that can be written"),
    ],
)
def test_a_board_whose_shell_does_not_get_to_us(server, reach, monkeypatch, files, said):
    monkeypatch.setattr(connection, "OPEN_S", 2)
    shell = reach("edgessl-bash", owner="edgessl-bash")
    for name, text in files.items():
        (server.home / name).write_text(f"{text}\n")
    server.give("edgessl-bash")
    assert said in unreachable(shell).message
    server.kill_all()  # the board's own doing


def test_a_hostile_board_cannot_flood_nor_paint(shell, monkeypatch):
    monkeypatch.setattr(remote, "MOST_OUTPUT", 1_000_000)
    monkeypatch.setattr(remote_stream, "MAX_LINE", 1_000_000)
    with pytest.raises(EdgeSSLError, match="printed more than"):
        shell.run(["yes"], timeout_s=60)
    with (
        shell.start(["sh", "-c", "yes | tr -d '\\n'"]) as stream,
        pytest.raises(EdgeSSLError, match="a line of more than"),
    ):
        stream.read_line(60)
    script = "yes 123456789 >&2 & sleep 1; printf '%09000d' 7 >&2; exit 5"
    with pytest.raises(EdgeSSLError) as caught:
        shell.run(["sh", "-c", script], timeout_s=60)
    assert len(caught.value.message) < 12_000
    script = r"printf '\033[2Jgone\302\233\342\200\256\r\nhere' >&2; exit 5"
    with pytest.raises(EdgeSSLError, match=r"status 5: \[2Jgone\nhere$"):
        shell.run(["sh", "-c", script], timeout_s=60)


def test_the_machines_own_client_is_asked_for_when_it_is_missing(reach, monkeypatch):
    shell = reach()
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(EdgeSSLError, match="no ssh program is on PATH") as caught:
        shell.run(["true"], timeout_s=20)
    assert "EDGESSL_SSH=asyncssh" in caught.value.hint


def test_no_client_is_told_to_trust_blindly():
    source = Path(openssh.__file__).parent
    for name in ("openssh", "ssh_async", "remote", "connection"):
        text = (source / f"{name}.py").read_text().lower()
        assert "stricthostkeychecking=no" not in text
        assert "known_hosts=none" not in text
