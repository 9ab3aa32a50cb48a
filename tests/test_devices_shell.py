"""Shells: processes end, output and errors stay apart, a script stands in for a board."""

import os
import sys
import time
from pathlib import Path

import pytest

from edgessl.core.errors import EdgeSSLError
from edgessl.devices.agent_file import agent_name
from edgessl.devices.base import Board
from edgessl.devices.fake import Answer, FakeShell
from edgessl.devices.linux import LinuxDevice, device_id
from edgessl.devices.local import open_board
from edgessl.devices.shell import LocalShell


@pytest.fixture
def shell():
    shell = LocalShell()
    yield shell
    shell.close()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # a zombie waits for its parent, it does not run
    state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return state != "Z"


def gone(pid):
    for _ in range(100):
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


def test_run_returns_output_and_explains_failures(shell):
    assert shell.run([sys.executable, "-c", "print('hello')"], timeout_s=20) == "hello\n"
    code = "import sys; print('it broke', file=sys.stderr); sys.exit(3)"
    with pytest.raises(EdgeSSLError, match="status 3: it broke"):
        shell.run([sys.executable, "-c", code], timeout_s=20)
    with pytest.raises(EdgeSSLError, match="cannot start no-such-program"):
        shell.run(["no-such-program"], timeout_s=20)


def test_a_shell_never_interprets_its_arguments(shell):
    text = "$HOME; `id` && echo *"
    code = "import sys; print(sys.argv[1])"
    assert shell.run([sys.executable, "-c", code, text], timeout_s=20) == text + "\n"


def test_a_time_out_kills_the_children_too(shell, tmp_path):
    note = tmp_path / "pid"
    code = (
        "import subprocess, sys, time; c = subprocess.Popen(['sleep', '60']);"
        "open(sys.argv[1], 'w').write(str(c.pid)); time.sleep(60)"
    )
    with pytest.raises(EdgeSSLError, match="did not end within 2 s"):
        shell.run([sys.executable, "-c", code, str(note)], timeout_s=2)
    assert gone(int(note.read_text()))


def test_a_stream_has_lines_in_order_a_status_and_the_errors(shell):
    code = (
        "import sys; print('one', flush=True); print('why', file=sys.stderr);"
        "print(sys.stdin.read() == '', flush=True); sys.exit(7)"
    )
    with shell.start([sys.executable, "-c", code]) as stream:
        assert stream.read_line(20) == "one"
        with pytest.raises(EdgeSSLError, match=r"said nothing for 0\.2 s"):
            stream.read_line(0.2)  # its standard input is still open
    # leaving closed it: the program read end of file and ended by itself
    assert stream.read_line(20) == "True"
    assert stream.read_line(20) is None
    assert stream.wait(20) == 7
    assert stream.stderr_tail == "why"


def test_a_program_that_ignores_its_input_is_killed_on_leaving(shell, monkeypatch):
    monkeypatch.setattr("edgessl.devices.shell.GRACE_S", 0.2)
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with shell.start([sys.executable, "-c", code]) as stream:
        pid = int(stream.read_line(20))
    assert gone(pid)


def test_files_travel_and_the_private_folder_goes_away(tmp_path):
    shell = LocalShell()
    (tmp_path / "a").write_bytes(b"\0\xff")
    shell.put(tmp_path / "a", "deep/er/b")
    shell.get("deep/er/b", tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"\0\xff"
    shell.remove("deep")
    shell.remove("never-there")
    folder = Path(shell.workdir)
    assert not any(folder.iterdir())
    assert folder.stat().st_mode & 0o077 == 0  # nobody else may read or write there
    shell.close()
    assert not folder.exists()


FACTS = (
    '{"k":"facts","t":0.1,"cpu":"ARMv7 Processor rev 3 (v7l)","cores":4,"host_hash":"0a1b2c",'
    '"board":"Raspberry Pi 4 Model B Rev 1.4"}'
)


def test_a_scripted_board_answers_and_remembers():
    shell = FakeShell(lambda argv: Answer(f"Welcome to the board\n{FACTS}\n"))
    device = LinuxDevice(Board("local", python="python3"), shell)
    assert device.id == "raspberry-pi-4-model-b-rev-1-4-4c-0a1b2c"
    assert device.facts()["cores"] == 4
    assert shell.transcript == [
        ("put", (agent_name(),)),
        ("run", ("python3", agent_name(), "facts")),
    ]
    assert set(shell.files) == {agent_name()}  # until the shell is closed


def elsewhere(said, status=0):
    shell = FakeShell(lambda argv: Answer(said, status, "sh: 1: exec: python3: not found"))
    return LinuxDevice(Board("ssh", "ssh://pi@board"), shell)


def test_a_board_elsewhere_needs_a_python_that_is_new_enough():
    assert elsewhere("edgessl-python 3 9 /usr/bin/python3\n").python == "/usr/bin/python3"
    with pytest.raises(EdgeSSLError, match=r"is Python 3\.6; 3\.8 or newer") as old:
        _ = elsewhere("edgessl-python 3 6 /usr/bin/python3\n").python
    with pytest.raises(EdgeSSLError, match=r"no Python on a scripted board.*not found") as none:
        _ = elsewhere("", status=127).python
    for caught in (old, none):
        assert "--python /path/to/python3" in caught.value.hint
    with pytest.raises(EdgeSSLError, match="is not Python: 'BusyBox"):
        _ = elsewhere("BusyBox v1.35").python


def test_a_runtime_of_the_board_is_started_from_its_private_folder():
    def script(argv):
        if "edgessl-python" in argv[2]:
            return Answer("edgessl-python 3 11 /usr/bin/python3")
        return Answer(f"edgessl-runtime {argv[3]}/litert/edgessl.json\n")

    device = LinuxDevice(Board("rpi", "ssh://pi@board"), FakeShell(script))
    private = "PYTHONPATH=/home/board/.edgessl/runtimes/litert"
    assert device.command("litert") == ["env", private, "/usr/bin/python3"]
    assert device.command("openvino") == ["/usr/bin/python3"]


def test_a_board_without_facts_is_an_error_not_a_crash():
    with pytest.raises(EdgeSSLError, match="told no facts: 'no python'"):
        LinuxDevice(Board("local"), FakeShell(lambda argv: Answer("no python"))).facts()


def test_ids_are_plain_and_hold_neither_marks_nor_clock():
    facts = {"board": None, "cpu": "Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz", "cores": 12}
    assert device_id(facts | {"host_hash": "abcdef"}) == "intel-core-i7-8700-12c-abcdef"
    assert device_id(facts | {"cpu": "龍芯", "host_hash": "abcdef"}) == "machine-12c-abcdef"


def test_this_machine_describes_itself_without_its_names():
    device = open_board(Board("local"))
    facts = device.facts()
    assert facts["cores"] == os.cpu_count()
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "power draw" in facts["not_observable"]
    assert os.uname().nodename not in str(facts).split()
    device.close()
