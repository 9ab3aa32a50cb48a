"""Addresses: the spellings that are taken, and those that are refused with the right one."""

import pytest

from edgessl.core.errors import UsageProblem
from edgessl.devices.address import AdbAddress, SshAddress, open_shell, parse
from edgessl.devices.base import Board
from edgessl.devices.shell import LocalShell
from edgessl.devices.ssh import open_board


@pytest.mark.parametrize(
    ("text", "address", "written"),
    [
        ("jetson", SshAddress("jetson"), "ssh://jetson"),
        ("pi@raspberrypi.local", SshAddress("raspberrypi.local", "pi"), None),
        ("ssh://pi@10.0.0.7:2222", SshAddress("10.0.0.7", "pi", 2222), "ssh://pi@10.0.0.7:2222"),
        ("ssh://board/", SshAddress("board"), "ssh://board"),
        ("fe80::1%eth0", SshAddress("fe80::1%eth0"), "ssh://[fe80::1%eth0]"),
        ("pi@::1", SshAddress("::1", "pi"), "ssh://pi@[::1]"),
        ("ssh://pi@[2001:db8::7]:22", SshAddress("2001:db8::7", "pi", 22), None),
        ("first.last@board_2", SshAddress("board_2", "first.last"), None),
        ("adb", AdbAddress(), None),
        ("adb:emulator-5554", AdbAddress("emulator-5554"), None),
        ("adb:10.0.0.9:5555", AdbAddress("10.0.0.9:5555"), None),
    ],
)
def test_the_usual_spellings(text, address, written):
    assert parse(text) == address
    if written:
        assert str(address) == written
        assert parse(written) == address


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("pi@board:2222", "ssh://pi@board:2222"),
        ("pi@board:/home/pi", "pi@board"),
        ("ssh://pi@board/home/pi", "pi@board"),
        ("ssh://pi:secret@board", "ssh-copy-id"),
        ("ssh://board:99999", "user@host"),
        ("ssh://[not-six]:22", "user@host"),
        ("http://board", "user@host"),
        # what ssh or a shell could take for something else
        ("-oProxyCommand=touch /tmp/x", "user@host"),
        ("ssh://-oProxyCommand=x", "user@host"),
        ("-lroot@board", "user@host"),
        ("pi@-v", "user@host"),
        ("pi@board;id", "user@host"),
        ("pi@$(id)", "user@host"),
        ("board\nHost *", "user@host"),
        ("pi@bo ard", "user@host"),
        ("pi@", "user@host"),
        ("@board", "user@host"),
        ("ssh://", "user@host"),
        ("adb:", "adb:SERIAL"),
        ("adb:-s", "adb:SERIAL"),
        ("adb:x;id", "adb:SERIAL"),
    ],
)
def test_what_is_no_address_is_refused_with_the_right_spelling(text, cure):
    with pytest.raises(UsageProblem) as caught:
        parse(text)
    assert cure in caught.value.hint
    assert "\n" not in caught.value.message
    assert "secret" not in str(caught.value.as_dict())


def test_making_a_shell_reaches_nothing(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("EDGESSL_SSH", "openssh")
    shell = open_shell(Board("ssh", "pi@nowhere.invalid"))
    assert shell.where == "ssh://pi@nowhere.invalid"
    shell.close()
    here = open_shell(Board("local"))
    assert isinstance(here, LocalShell)
    here.close()
    monkeypatch.setenv("EDGESSL_SSH", "putty")
    with pytest.raises(UsageProblem, match="EDGESSL_SSH is 'putty'"):
        open_shell(Board("ssh", "board"))
    with pytest.raises(UsageProblem, match="is not the address of a board"):
        open_board(Board("ssh", "a board"))
