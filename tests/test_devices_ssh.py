"""Boards behind SSH: a real server, both clients, every kind of login shell."""

import os
from pathlib import Path

import numpy as np
import pytest
from sshd import DROPBEAR, Dropbear, Sshd, Wire, wait_for

from edgessl.core.errors import BoardUnreachable, EdgeSSLError
from edgessl.devices import openssh
from edgessl.devices.address import open_shell
from edgessl.devices.base import Board, CommandFailed
from edgessl.devices.linux import LinuxDevice

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

    def reach(host="board", client="openssh", owner="edgessl-sh"):
        if client == "asyncssh":
            pytest.importorskip("asyncssh", reason="the other client: pip install asyncssh")
        monkeypatch.setenv("EDGESSL_SSH", client)
        server.new_home(owner)
        opened.append(open_shell(Board("ssh", host)))
        return opened[-1]

    yield reach
    for shell in opened:
        shell.close()
        shell.close()
    assert server.is_clean(), (server.programs(), server.work_folders())


@pytest.fixture(params=CLIENTS)
def shell(request, reach):
    return reach(client=request.param)


def board_home(server):
    return server.home / ".edgessl"


def test_programs_run_and_end_as_on_this_machine(shell, server):
    assert shell.run(["echo", "hello"], timeout_s=20) == "hello\n"
    assert shell.run(["pwd"], timeout_s=20).strip() == shell.workdir
    assert Path(shell.workdir).parent == Path(shell.home) == board_home(server)
    assert shell.run(["cat"], timeout_s=20) == ""  # standard input is closed
    for script, status in (("exit 3", 3), ("exit 255", 255), ("kill -9 $$", -9)):
        with pytest.raises(CommandFailed, match="it broke") as caught:
            shell.run(["sh", "-c", f"echo it broke >&2; {script}"], timeout_s=20)
        assert caught.value.status == status
    with pytest.raises(CommandFailed, match="no-such-program is not there") as caught:
        shell.run(["no-such-program"], timeout_s=20)
    assert caught.value.status == 127
    binary = shell.run(["printf", r"\377\0\n"], timeout_s=20)
    assert binary == "\N{REPLACEMENT CHARACTER}\0\n"


def test_the_work_folder_is_ours_alone(shell, server):
    shell.run(["true"], timeout_s=20)
    for folder in (board_home(server), Path(shell.workdir)):
        assert folder.stat().st_mode & 0o777 == 0o700


HOSTILE = [
    "with space", "it's", 'say "hi"', "$(touch owned)", "`id`", "two\nlines", "-rf", "--help",
    "ünïcode ☃", "!!", "back\\slash", "\\0101", "*", "%s%d", "~root", "#x", "a;b&c|d>e",
    "tab\there", "=", "{a,b}", "[x]", "'\\''",
]  # fmt: skip


@pytest.mark.parametrize("client", CLIENTS)
def test_no_string_is_ever_more_than_a_string(reach, server, tmp_path, client):
    shell = reach(client=client)
    (tmp_path / "source").write_bytes(b"x")
    said = shell.run(["printf", r"%s\0", *HOSTILE, ""], timeout_s=20)
    assert said.split("\0") == [*HOSTILE, "", ""]
    for name in HOSTILE:
        shell.put(tmp_path / "source", f"in/{name}")
        shell.get(f"in/{name}", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == b"x"
    folder = Path(shell.workdir) / "in"
    assert {path.name for path in folder.iterdir()} == set(HOSTILE)
    for name in HOSTILE:
        shell.remove(f"in/{name}")
    assert list(folder.iterdir()) == []
    for script in ("-c", "exit"):  # neither an option nor a word of the shell
        with pytest.raises(CommandFailed):
            shell.run([script], timeout_s=20)
    for name in ("../up", "a/../../up", "/", ".", ""):
        with pytest.raises(EdgeSSLError, match="does not name a file"):
            shell.remove(name)
    with pytest.raises(EdgeSSLError, match="NUL"):
        shell.run(["echo", "a\0b"], timeout_s=20)


def test_a_time_out_kills_the_whole_group(shell, server):
    with pytest.raises(EdgeSSLError, match="did not end within 1 s"):
        shell.run(["sh", "-c", "sleep 600 & sleep 600"], timeout_s=1)
    wait_for(lambda: not any("sleep 600" in line for line in server.programs()))
    shell.run(["sh", "-c", "sleep 601 & true"], timeout_s=20)  # what is left behind, too
    wait_for(lambda: not any("sleep 601" in line for line in server.programs()))


def test_a_stream_has_lines_in_order_a_status_and_the_errors(shell):
    script = 'echo why >&2; while read -r line; do echo "got $line"; done; printf end; exit 7'
    with shell.start(["sh", "-c", script]) as stream:
        stream.send("one")
        assert stream.read_line(20) == "got one"
        with pytest.raises(EdgeSSLError, match=r"said nothing for 0\.2 s"):
            stream.read_line(0.2)
        with pytest.raises(EdgeSSLError, match=r"did not end within 0\.2 s"):
            stream.wait(0.2)
        stream.send("dïs")
        assert stream.read_line(20) == "got dïs"
    # leaving closed its input: it ended by itself
    assert stream.read_line(20) == "end"
    assert stream.read_line(20) is None
    assert stream.wait(20) == 7
    assert stream.stderr_tail == "why"
    with pytest.raises(EdgeSSLError, match="reads no more"):
        stream.send("more")


def test_a_program_that_ignores_its_input_is_killed_on_leaving(shell, server, monkeypatch):
    monkeypatch.setattr("edgessl.devices.remote_stream.GRACE_S", 0.5)
    with shell.start(["sh", "-c", "trap '' TERM; sleep 602; sleep 602"]):
        wait_for(lambda: any("sleep 602" in line for line in server.programs()))
    wait_for(lambda: not any("sleep 602" in line for line in server.programs()))


def test_a_file_too_large_to_be_true_is_not_fetched(shell, tmp_path, monkeypatch):
    monkeypatch.setattr("edgessl.devices.remote.LARGEST_FETCHED", 10)
    (tmp_path / "a").write_bytes(b"0123456789")
    (tmp_path / "b").write_bytes(b"0123456789a")
    for name in "ab":
        shell.put(tmp_path / name, name)
    shell.get("a", tmp_path / "back")
    with pytest.raises(EdgeSSLError, match="has 11 bytes: not fetched"):
        shell.get("b", tmp_path / "too large")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "back"]


@pytest.mark.parametrize("client", CLIENTS)
def test_files_arrive_whole_and_are_not_sent_twice(reach, server, tmp_path, client):
    wire = Wire(server.port)
    try:
        server.write_config(wire.port)
        shell = reach(client=client)
        content = np.random.default_rng(0).bytes(3_000_000)
        (tmp_path / "big").write_bytes(content)
        shell.put(tmp_path / "big", "deep/er/big")
        assert (Path(shell.workdir) / "deep/er/big").read_bytes() == content
        sent = wire.sent
        assert sent > 3_000_000
        shell.put(tmp_path / "big", "deep/er/big")  # there already
        staying = f"{shell.home}/runtimes/x/wheel"
        shell.put(tmp_path / "big", staying)
        shell.put(tmp_path / "big", staying)
        assert Path(staying).read_bytes() == content
        assert wire.sent - sent < 3_200_000
        (Path(shell.workdir) / "deep/er/big").write_bytes(b"spoilt there")
        shell.put(tmp_path / "big", "deep/er/big")
        assert (Path(shell.workdir) / "deep/er/big").read_bytes() == content
        shell.get(staying, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content

        for name, text in (("small", b"1"), ("small", b"2"), ("empty", b"")):
            (tmp_path / name).write_bytes(text)
            shell.put(tmp_path / name, name)
            shell.get(name, tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == text
        with pytest.raises(EdgeSSLError, match=r"cannot get nothing from .*: it is not there"):
            shell.get("nothing", tmp_path / "nothing")
        with pytest.raises(EdgeSSLError, match=r"cannot copy small to deep on .*folder"):
            shell.put(tmp_path / "small", "deep")
        assert {path.name for path in tmp_path.iterdir()} == {"back", "big", "empty", "small"}
        shell.remove("deep")
        shell.remove("never-there")
        shell.close()
        assert server.work_folders() == []
        assert Path(staying).read_bytes() == content  # what is to stay, stays
    finally:
        wire.close()
        server.write_config()


CHATTER = "echo Welcome to the board; echo and its troubles >&2"


@pytest.mark.parametrize(
    ("user", "files"),
    [
        ("edgessl-sh", {}),
        ("edgessl-bash", {".bashrc": f"{CHATTER}; alias ls=false; set -u; printf 'no end'"}),
        ("edgessl-ash", {}),
        ("edgessl-fish", {".config/fish/config.fish": CHATTER}),
        ("edgessl-csh", {".cshrc": "echo Welcome; set histchars = '!'"}),
    ],
)
def test_any_login_shell_and_whatever_its_files_print(reach, server, tmp_path, user, files):
    shell = reach(user, owner=user)
    for name, text in files.items():
        (server.home / name).parent.mkdir(parents=True, exist_ok=True)
        (server.home / name).write_text(f"{text}\n")
        server.give(user)
    text = 'it\'s a "$HOME" \\0101 !! line\nand another'
    assert shell.run(["printf", "%s", text], timeout_s=20) == text
    with pytest.raises(CommandFailed) as caught:
        shell.run(["sh", "-c", "echo broken >&2; exit 4"], timeout_s=20)
    assert caught.value.message.endswith("status 4: broken")
    with shell.start(["cat"]) as stream:
        stream.send("first")
        assert stream.read_line(20) == "first"
    (tmp_path / "a").write_bytes(os.urandom(100_000))
    shell.put(tmp_path / "a", "it's")
    shell.get("it's", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("client", CLIENTS)
def test_jump_hosts_of_the_configuration_are_used(reach, client):
    shell = reach("by-jump", client)
    said = shell.run(["sh", "-c", "echo $SSH_CONNECTION"], timeout_s=20)
    assert said.startswith("127.0.0.1 ")


def test_one_connection_is_shared_and_leaves_nothing_here(reach, server, monkeypatch):
    folders = server.folder / "t"
    (folders / "edgessl-ssh-killed").mkdir(parents=True)
    os.utime(folders / "edgessl-ssh-killed", (0, 0))
    monkeypatch.setattr("tempfile.tempdir", str(folders))
    before = (server.folder / "log").read_text().count("Accepted publickey")
    shell = reach()
    for _ in range(3):
        shell.run(["true"], timeout_s=20)
    assert (server.folder / "log").read_text().count("Accepted publickey") == before + 1
    (folder,) = folders.iterdir()  # that of a killed process was removed
    assert folder.stat().st_mode & 0o777 == 0o700
    shell.close()
    assert list(folders.iterdir()) == []


def test_a_socket_finds_a_short_place(reach, tmp_path, monkeypatch):
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    assert reach().run(["echo", "hello"], timeout_s=20) == "hello\n"
    assert list(deep.iterdir()) == []


def test_without_a_shared_connection_all_is_the_same(reach, server, tmp_path, monkeypatch):
    monkeypatch.setattr(openssh, "SHARE", False)  # Windows
    shell = reach()
    assert shell.run(["echo", "hello"], timeout_s=20) == "hello\n"
    (tmp_path / "a").write_bytes(b"a")
    shell.put(tmp_path / "a", "a")
    with shell.start(["cat", "a", "-"]) as stream:
        stream.send("b")
        assert stream.read_line(20) == "ab"
    with pytest.raises(EdgeSSLError, match="did not end within"):
        shell.run(["sleep", "603"], timeout_s=1)


def test_a_board_needs_no_more_than_busybox(server, reach, tmp_path):
    """Neither coreutils nor util-linux: BusyBox alone, and Python for what has no program."""
    tools = server.folder / "tools"
    tools.mkdir()
    names = ["cat", "chmod", "mkdir", "mv", "rm", "sleep", "uname", "wc", "echo"]
    for name in names:
        (tools / name).symlink_to("/usr/bin/busybox")
    (tmp_path / "a").write_bytes(os.urandom(100_000))
    server.environment["PATH"] = str(tools)
    try:
        server.stop()
        server.start()
        shell = reach("edgessl-ash", owner="edgessl-ash")
        with pytest.raises(EdgeSSLError, match=r"nothing-for-sha256|not found"):
            shell.put(tmp_path / "a", "a")
        with pytest.raises(EdgeSSLError, match="no Python on ssh://edgessl-ash") as caught:
            LinuxDevice(Board("ssh", "edgessl-ash"), shell).facts()
        assert "install Python 3.8 or newer" in caught.value.hint
        for tool, program in (("sha256sum", "/usr/bin/busybox"), ("python3", "/usr/bin/python3")):
            (tools / tool).symlink_to(program)
            shell.put(tmp_path / "a", f"by-{tool}")
            shell.get(f"by-{tool}", tmp_path / "b")
            assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
            (tools / tool).unlink()
        shell.close()
    finally:
        server.environment.clear()
        server.stop()
        server.start()


@pytest.mark.parametrize("client", CLIENTS)
def test_dropbear_will_do(tmp_path, monkeypatch, client):
    """It makes no process group for a command; what runs is ended all the same."""
    dropbear = Dropbear()
    monkeypatch.setenv("EDGESSL_SSH_CONFIG", str(dropbear.config))
    monkeypatch.setenv("EDGESSL_SSH", client)
    monkeypatch.setattr("edgessl.devices.remote_stream.GRACE_S", 0.5)
    try:
        shell = open_shell(Board("ssh", DROPBEAR))
        (tmp_path / "a").write_bytes(os.urandom(3_000_000))
        shell.put(tmp_path / "a", "a")
        shell.get("a", tmp_path / "b")
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
        with pytest.raises(CommandFailed, match=r"status 4: why$"):
            shell.run(["sh", "-c", "echo why >&2; exit 4"], timeout_s=20)
        with pytest.raises(EdgeSSLError, match="did not end within 1 s"):
            shell.run(["sleep", "704"], timeout_s=1)
        script = "trap '' TERM; echo on; sleep 705; sleep 705"
        with shell.start(["sh", "-c", script]) as stream:
            assert stream.read_line(20) == "on"
        wait_for(lambda: not any("sleep 70" in line for line in dropbear.programs()))
        with shell.start(["sh", "-c", script]) as stream:
            assert stream.read_line(20) == "on"
            dropbear.cut()
            with pytest.raises(BoardUnreachable, match="was lost after 1 lines of sh"):
                stream.read_line(60)
        assert dropbear.is_clean(), dropbear.programs()
        shell.close()
    finally:
        dropbear.close()


def test_after_close_there_is_no_connection(shell):
    shell.run(["true"], timeout_s=20)
    shell.close()
    with pytest.raises(EdgeSSLError, match="is closed"):
        shell.run(["true"], timeout_s=20)
