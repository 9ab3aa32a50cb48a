"""Phones over adb: the real client, against the real adbd and against one that misbehaves."""

import os
import shutil
import subprocess
import sys
import time

import adb_devices
import pytest
from scripted_adbd import Faults, scripted_adbd

from edgessl.core.errors import BoardUnreachable, DiskFull, EdgeSSLError, MissingExtra
from edgessl.devices import adb_client
from edgessl.devices.adb import AdbShell
from edgessl.devices.adb_client import Phone, network_address
from edgessl.devices.adb_scripts import FIXED_MARK, joined
from edgessl.devices.base import CommandFailed

NEEDS_ADB = pytest.mark.skipif(not shutil.which("adb"), reason="run tests/standins/adbd")
FREED = "cmd power set-fixed-performance-mode-enabled false\n"
HOSTILE = "a b/$(touch pwned)/`id`;'\"\\*?~ -rf\n&é"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with adb_devices.private_server(tmp_path_factory.mktemp("adb")) as variables:
        yield variables


@pytest.fixture
def environment(server, monkeypatch):
    for name, value in server.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def phone(tmp_path_factory):
    storage = tmp_path_factory.mktemp("phone") / "storage"
    with adb_devices.real_adbd(storage) as serial:
        yield serial, storage


@pytest.fixture
def shell(phone, environment):
    shell = AdbShell(phone[0])
    yield shell
    shell.close()
    assert left(phone[1]) == []


def left(storage):
    """What a session left in our folder of the phone, once the phone had time to clean up."""
    for _ in range(100):
        found = sorted(p.name for p in (storage / "edgessl").iterdir())
        if not found:
            break
        time.sleep(0.05)
    return found


def running(shell, word):
    script = f"ps | grep -v grep | grep -c {word}; true"
    for _ in range(60):
        count = int(shell.run(["sh", "-c", script], timeout_s=20))
        if not count:
            break
        time.sleep(0.05)
    return count


@pytest.mark.adbd
@pytest.mark.slow
@pytest.mark.skipif(bool(adb_devices.missing()), reason=adb_devices.missing() or "there")
class TestRealPhone:
    def test_programs_run_and_explain_their_end(self, shell):
        assert shell.run(["uname", "-m"], timeout_s=20) == "aarch64\n"
        assert shell.where.startswith("adb:127.0.0.1:")
        assert shell.workdir.startswith("/data/local/tmp/edgessl/work-")
        assert shell.run(["pwd"], timeout_s=20).strip() == shell.workdir
        assert not shell.merged
        with pytest.raises(CommandFailed, match=r"status 3: why$") as caught:
            shell.run(["sh", "-c", "echo out; echo why >&2; exit 3"], timeout_s=20)
        assert caught.value.status == 3
        with pytest.raises(CommandFailed) as caught:
            shell.run(["no-such-program"], timeout_s=20)
        assert caught.value.status == 127
        with pytest.raises(CommandFailed) as caught:
            shell.run(["sh", "-c", "kill -9 $$"], timeout_s=20)
        assert caught.value.status == -9

    def test_the_phone_never_interprets_a_word(self, shell, phone):
        words = [HOSTILE, "$HOME", "A=b", "", "-n", "&& reboot"]
        script = 'for word; do printf "%s|" "$word"; done'
        assert shell.run(["sh", "-c", script, "sh", *words], timeout_s=20) == (
            "|".join(words) + "|\n"
        )
        with pytest.raises(CommandFailed, match="A=b: not found"):
            shell.run(["A=b", "true"], timeout_s=20)
        assert not list(phone[1].rglob("pwned"))

    def test_a_time_out_ends_the_program_and_its_children(self, shell):
        with pytest.raises(EdgeSSLError, match=r"sh on adb:.* did not end within 0\.5 s"):
            shell.run(["sh", "-c", "sleep 616 & sleep 616"], timeout_s=0.5)
        assert running(shell, "616") == 0

    def test_a_stream_is_spoken_with_and_ends_with_its_input(self, shell):
        script = "while read -r line; do echo got $line; done; echo why >&2; exit 7"
        with shell.start(["sh", "-c", script]) as stream:
            stream.send("one")
            assert stream.read_line(20) == "got one"
            with pytest.raises(EdgeSSLError, match=r"said nothing for 0\.2 s"):
                stream.read_line(0.2)
        assert stream.read_line(20) is None
        assert stream.read_line(20) is None
        assert stream.wait(20) == 7
        assert stream.stderr_tail == "why"
        with pytest.raises(BoardUnreachable):
            stream.send("too late")

    def test_a_program_that_ignores_its_input_is_ended_on_leaving(self, shell, monkeypatch):
        monkeypatch.setattr("edgessl.devices.adb.GRACE_S", 0.2)
        with shell.start(["sh", "-c", "sleep 617 & sleep 617"]):
            pass
        assert running(shell, "617") == 0

    def test_files_travel_whole_under_any_name(self, shell, phone, tmp_path):
        content = os.urandom(300_000)
        (tmp_path / "in").write_bytes(content)
        shell.put(tmp_path / "in", HOSTILE)
        there = phone[1] / "edgessl" / shell.workdir.rpartition("/")[2] / HOSTILE
        assert there.read_bytes() == content
        assert [p.name for p in there.parent.iterdir()] == [there.name]  # no half copy beside it
        stamp = there.stat().st_mtime_ns
        shell.put(tmp_path / "in", HOSTILE)  # the same content is not sent again
        assert there.stat().st_mtime_ns == stamp
        there.write_bytes(content[:1000])  # a half copy of somebody else is replaced
        shell.put(tmp_path / "in", HOSTILE)
        shell.get(HOSTILE, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == content
        assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]
        with pytest.raises(EdgeSSLError, match="nowhere is no file"):
            shell.get("nowhere", tmp_path / "other")
        shell.remove(HOSTILE)
        shell.remove("never-there")
        assert not there.exists()

    def test_a_full_phone_is_named_and_nothing_half_stays(self, shell, tmp_path):
        (tmp_path / "big").write_bytes(os.urandom(1 << 20))
        with pytest.raises(DiskFull, match=r"no space left on adb:.* for big"):
            shell.put(tmp_path / "big", "/data/local/tmp/small/big")
        assert shell.run(["ls", "/data/local/tmp/small"], timeout_s=20) == ""

    @pytest.mark.parametrize("switched", [False, True])
    def test_a_killed_workstation_leaves_a_clean_phone(self, shell, phone, switched):
        code = (
            "import sys, time; from edgessl.devices.adb import AdbShell;"
            "shell = AdbShell(sys.argv[1]); shell.run(['touch', sys.argv[2]], timeout_s=20);"
            "stream = shell.start(['sh', '-c', 'sleep 618; true']);"
            "stream.__enter__(); print(shell.workdir, flush=True); time.sleep(60)"
        )
        shell.run(["true"], timeout_s=20)
        log = phone[1] / "phone.log"
        log.unlink(missing_ok=True)
        mark = FIXED_MARK if switched else "something-else"
        with subprocess.Popen(
            [sys.executable, "-c", code, phone[0], mark], stdout=subprocess.PIPE, text=True
        ) as process:
            folder = process.stdout.readline().strip().rpartition("/")[2]
            assert (phone[1] / "edgessl" / folder).is_dir()
            process.kill()
        for _ in range(100):
            if not (phone[1] / "edgessl" / folder).exists():
                break
            time.sleep(0.05)
        assert not (phone[1] / "edgessl" / folder).exists()
        # only what we switched is switched back
        assert (log.read_text() if log.exists() else "") == (FREED if switched else "")

    def test_what_a_phone_that_fell_off_left_is_removed_next_time(self, phone, environment):
        old = phone[1] / "edgessl" / "work-4194303-0a1b2c3d"  # no process has this number
        old.mkdir(parents=True)
        (old / FIXED_MARK).touch()
        (phone[1] / "phone.log").unlink(missing_ok=True)
        (phone[1] / "edgessl/python-0a.part").mkdir()
        (phone[1] / "edgessl/python-0a.part/python").touch()
        for name in ("python-0a.tar", "python-0a.tar.part"):
            (phone[1] / "edgessl" / name).touch()
        (phone[1] / "edgessl/python-0a").mkdir()
        for path in (phone[1] / "edgessl").rglob("*"):
            os.chown(path, adb_devices.SHELL_USER, adb_devices.SHELL_USER)
        shell = AdbShell(phone[0])
        assert shell.run(["true"], timeout_s=20) == ""
        kept = sorted(path.name for path in (phone[1] / "edgessl").iterdir())
        assert kept == ["python-0a", shell.workdir.rpartition("/")[2]]
        assert (phone[1] / "phone.log").read_text() == FREED
        (phone[1] / "edgessl/python-0a").rmdir()
        # what is under way while another shell is at work is none of ours
        (phone[1] / "edgessl/python-0a.part").mkdir()
        second = AdbShell(phone[0])
        assert second.run(["true"], timeout_s=20) == ""
        assert (phone[1] / "edgessl/python-0a.part").exists()
        (phone[1] / "edgessl/python-0a.part").rmdir()
        second.close()
        shell.close()


@NEEDS_ADB
class TestMisbehavingPhone:
    @pytest.fixture(autouse=True)
    def quick(self, environment, monkeypatch):
        monkeypatch.setattr(adb_client, "POLL_S", 0.1)

    def test_a_tap_on_the_phone_is_waited_for(self, tmp_path):
        with scripted_adbd(tmp_path, Faults(asks=True, accepted_after_s=0.5)) as serial:
            shell = AdbShell(serial, patience_s=20)
            assert shell.run(["echo", "hello"], timeout_s=20) == "hello\n"
            shell.close()

    def test_a_phone_that_was_not_unlocked_says_what_to_tap(self, tmp_path):
        with scripted_adbd(tmp_path, Faults(asks=True, accepted_after_s=None)) as serial:
            with pytest.raises(BoardUnreachable, match="is 'unauthorized'") as caught:
                AdbShell(serial, patience_s=0.3).run(["true"], timeout_s=20)
            assert "tap 'Allow'" in caught.value.hint

    def test_before_android_7_statuses_are_found_and_errors_are_merged(self, tmp_path):
        with scripted_adbd(tmp_path, Faults(shell_v2=False)) as serial:
            shell = AdbShell(serial)
            assert shell.merged
            script = "echo out; echo why >&2; exit 3"
            with pytest.raises(CommandFailed, match="status 3: out\nwhy") as caught:
                shell.run(["sh", "-c", script], timeout_s=20)
            assert caught.value.status == 3
            assert shell.run(["echo", "hello"], timeout_s=20) == "hello\n"
            with shell.start(["sh", "-c", "read -r line; echo got $line; exit 5"]) as stream:
                stream.send("one")
                while (line := stream.read_line(20)) != "got one":
                    assert line in ("one", "")
                assert stream.wait(20) == 5
            (tmp_path / "in").write_bytes(b"\r\n\0" * 50_000)
            shell.put(tmp_path / "in", "a b/c")
            shell.get("a b/c", tmp_path / "out")
            assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()
            shell.close()
            assert left(tmp_path) == []

    def test_a_hung_phone_blocks_nobody(self, tmp_path):
        with scripted_adbd(tmp_path, Faults(hang_on=b"'true'")) as serial:
            shell = AdbShell(serial)
            with pytest.raises(EdgeSSLError, match=r"true on adb:.* did not end within 0\.3 s"):
                shell.run(["true"], timeout_s=0.3)
            assert shell.run(["echo", "on"], timeout_s=20) == "on\n"
            shell.close()

    def test_a_connection_lost_in_mid_run_is_not_taken_for_an_end(self, tmp_path):
        with scripted_adbd(tmp_path, Faults(drop_on=b"first")) as serial:
            shell = AdbShell(serial)
            script = "echo first; sleep 2; echo second"
            with pytest.raises(BoardUnreachable, match="was lost while sh ran"):
                shell.run(["sh", "-c", script], timeout_s=20)
            shell.close()
            assert left(tmp_path) == []  # adbd hung up on the keeper of the work folder
        with scripted_adbd(tmp_path, Faults(drop_on=b"first")) as serial:
            shell = AdbShell(serial)
            with shell.start(["sh", "-c", script]) as stream:
                assert stream.read_line(20) == "first"
                with pytest.raises(BoardUnreachable, match="was lost"):
                    stream.read_line(20)
                with pytest.raises(BoardUnreachable):
                    stream.wait(20)

    def test_a_pulled_cable_switches_off_what_was_switched_on(self, tmp_path, monkeypatch):
        program = tmp_path / "bin/cmd"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\necho "cmd $*" >>{tmp_path}/log\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        with scripted_adbd(tmp_path, Faults(drop_on=b"first")) as serial:
            shell = AdbShell(serial)
            shell.run(["touch", FIXED_MARK], timeout_s=20)
            with pytest.raises(BoardUnreachable, match="was lost while sh ran"):
                shell.run(["sh", "-c", "echo first; sleep 2"], timeout_s=20)
            assert left(tmp_path) == []
            assert (tmp_path / "log").read_text() == FREED

    def test_a_connection_lost_in_mid_copy_leaves_nothing_that_could_be_run(self, tmp_path):
        (tmp_path / "in").write_bytes(os.urandom(2_000_000))
        with scripted_adbd(tmp_path, Faults(drop_push_after=500_000)) as serial:
            shell = AdbShell(serial)
            with pytest.raises(BoardUnreachable, match="was lost while copying in"):
                shell.put(tmp_path / "in", f"{shell.home}/runtimes/x")
            names = [p.name for p in (tmp_path / "edgessl/runtimes").iterdir()]
            assert names == ["x.part"]
        with scripted_adbd(tmp_path, Faults()) as serial:  # and the next try mends it
            shell = AdbShell(serial)
            shell.put(tmp_path / "in", f"{shell.home}/runtimes/x")
            shell.close()
            assert (tmp_path / "edgessl/runtimes/x").read_bytes() == (tmp_path / "in").read_bytes()
            assert not (tmp_path / "edgessl/runtimes/x.part").exists()

    def test_a_refused_connection_is_told_although_adb_says_0(self):
        address = f"127.0.0.1:{adb_devices.free_port()}"
        with pytest.raises(BoardUnreachable, match=f"no connection to adb:{address}: .*refused"):
            AdbShell(address).run(["true"], timeout_s=20)

    def test_of_several_phones_one_must_be_named(self, tmp_path):
        with (
            scripted_adbd(tmp_path, Faults()) as one,
            scripted_adbd(tmp_path, Faults()) as two,
        ):
            for serial in (one, two):
                AdbShell(serial).run(["true"], timeout_s=20)
            with pytest.raises(BoardUnreachable, match=r"adb sees \d+ phones") as caught:
                AdbShell().run(["true"], timeout_s=20)
            assert f"--address adb:{one}" in caught.value.hint
            assert f"--address adb:{two}" in caught.value.hint


LISTING = """* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
0A191JEC200123         device usb:1-1 product:redfin model:Pixel_5 device:redfin transport_id:1
R58M12ABCDE            unauthorized usb:1-2 transport_id:2
emulator-5554          offline transport_id:3
HT7A91A00123           no permissions (user in plugdev group; are your udev rules wrong?); see \
[http://developer.android.com/tools/device.html] usb:1-3
evil\x1b[2Jname         recovery
"""


def test_what_adb_lists(monkeypatch):
    monkeypatch.setattr(adb_client, "ask", lambda adb, argv: (0, LISTING))
    assert adb_client.phones("adb") == [
        Phone("0A191JEC200123", "device", "Pixel_5"),
        Phone("R58M12ABCDE", "unauthorized"),
        Phone("emulator-5554", "offline"),
        Phone("HT7A91A00123", "no permissions"),
        Phone("evil", "[2Jname"),
    ]


@pytest.mark.parametrize(
    ("state", "advice"),
    [("unauthorized", "Allow"), ("offline", "plug"), ("no permissions", "plugdev"),
     ("recovery", "start the phone normally")],
)  # fmt: skip
def test_each_state_has_its_own_advice(state, advice, monkeypatch):
    monkeypatch.setattr(adb_client, "start_server", lambda adb: None)
    monkeypatch.setattr(adb_client, "phones", lambda adb: [Phone("S", state)])
    with pytest.raises(BoardUnreachable, match=f"adb:S is '{state}'") as caught:
        adb_client.reach("adb", None, 1, sleep=lambda s: None)
    assert advice in caught.value.hint


def test_a_serial_that_is_not_there_and_no_phone_at_all(monkeypatch):
    monkeypatch.setattr(adb_client, "start_server", lambda adb: None)
    monkeypatch.setattr(adb_client, "phones", lambda adb: [Phone("S", "device", "Pixel_5")])
    with pytest.raises(BoardUnreachable, match=r"no phone adb:T; adb sees S Pixel_5 \(device\)"):
        adb_client.reach("adb", "T", 1)
    monkeypatch.setattr(adb_client, "phones", lambda adb: [])
    with pytest.raises(BoardUnreachable, match="adb sees no phone") as caught:
        adb_client.reach("adb", None, 1)
    assert "USB debugging" in caught.value.hint


def test_network_addresses_are_told_from_serials():
    assert network_address("192.168.1.7") == "192.168.1.7:5555"
    assert network_address("phone.lan:37099") == "phone.lan:37099"
    assert network_address("[fe80::1]:5555") == "[fe80::1]:5555"
    assert network_address("fe80::1") == "[fe80::1]:5555"
    assert network_address("0A191JEC200123") is None
    assert network_address("emulator-5554") is None
    assert network_address("adb-0A191JEC200123-x1._adb-tls-connect._tcp") is None


def test_adb_is_found_in_the_sdk_or_the_install_lines_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(adb_client.importlib.util, "find_spec", lambda name: None)
    program = tmp_path / "platform-tools/adb"
    program.parent.mkdir()
    program.write_text("")
    with pytest.raises(MissingExtra) as caught:
        adb_client.find_adb({"PATH": "/nowhere", "ANDROID_HOME": str(tmp_path)})
    assert "pip install 'edgessl[android]'" in caught.value.hint
    assert "apt install adb" in caught.value.hint
    program.chmod(0o755)
    for variable in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        assert adb_client.find_adb({"PATH": "/nowhere", variable: str(tmp_path)}) == str(program)


def test_every_word_is_quoted():
    assert joined(["a", "it's", "A=b", ""]) == r"'a' 'it'\''s' 'A=b' ''"
