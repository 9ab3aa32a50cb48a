"""Android: what phones say, what is done to them before a figure, and a Python that they lack."""

import gzip
import hashlib
import http.server
import io
import json
import os
import shutil
import tarfile
import threading
import tomllib
from pathlib import Path

import adb_devices
import pytest
from tiny_bench import MINI, N, bench, images_and_logits, write_onnx, write_stage

from edgessl.core.errors import BoardUnreachable, DiskFull, EdgeSSLError, FileInvalid
from edgessl.devices import android_bundle, android_traits, dumpsys, setup
from edgessl.devices.adb import AdbShell
from edgessl.devices.adb_scripts import FIXED_MARK
from edgessl.devices.android import AndroidDevice, cores_of, fastest, open_board
from edgessl.devices.android_pieces import PIECES, Piece
from edgessl.devices.base import Board
from edgessl.devices.energy import energy_of
from edgessl.devices.fake import Answer, FakeShell

RECORDED = tomllib.loads((Path(__file__).parent / "recorded/android.toml").read_text())
BATTERY, THERMAL = RECORDED["battery"], RECORDED["thermal"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("usb_full", "100 %, full, plugged in (USB), 27.4 C"),
        ("on_battery", "67 %, discharging, 33.7 C"),
        ("with_log", "75 %, charging, plugged in (AC), 35.7 C"),
        ("charging_15", "15 %, charging, plugged in (AC, wireless), 34.0 C"),
    ],
)
def test_batteries(name, words):
    assert dumpsys.battery(BATTERY[name]).words == words


@pytest.mark.parametrize("text", ["", "Can't find service: battery", "level: \x1b[2J\nscale: 0"])
def test_a_battery_that_says_nothing(text):
    assert dumpsys.battery(text).words == ""


@pytest.mark.parametrize(
    ("name", "words", "celsius"),
    [
        ("stale_cache", "0 (none)", {"CPU0": 37.0, "GPU": 36.3, "skin": 31.0}),
        ("box", "1 (light)", {"CPU0": 62.500004, "CPU1": 62.500004, "GPU": 61.000004}),
        ("pixel", "2 (moderate)",
         {"VIRTUAL-SKIN": 23.793081, "VIRTUAL-USB-UI": 22.373001, "TPU": 30.0}),
        ("hal_not_ready", "0 (none)", {}),
        ("absent", "", {}),
    ],
)  # fmt: skip
def test_heat_is_what_the_hardware_says_now(name, words, celsius):
    told = dumpsys.thermal(THERMAL[name])
    assert told.words == words
    assert told.celsius == celsius
    assert told.hottest == (max(celsius.items(), key=lambda i: i[1]) if celsius else None)


def test_screens_and_properties():
    assert dumpsys.awake(RECORDED["power"]["asleep"]) is False
    assert dumpsys.awake(RECORDED["power"]["awake"]) is True
    assert dumpsys.awake("") is None
    told = dumpsys.properties(RECORDED["getprop"]["pixel"])
    assert told["ro.product.model"] == "Pixel 5"
    assert told["persist.sys.boot.reason.history"].endswith("1690000000")


def test_cores_and_clusters():
    assert cores_of("0 1 2 3") == cores_of("0-3") == [0, 1, 2, 3]
    assert cores_of("0-1,6") == [0, 1, 6]
    assert cores_of("999") == cores_of("none") == []
    pixel_5 = [(1804800, [0, 1, 2, 3, 4, 5]), (2208000, [6]), (2400000, [7])]
    assert fastest(pixel_5, 1) == [7]
    assert fastest(pixel_5, 2) == [6, 7]
    assert fastest(pixel_5, 4) == list(range(8))
    assert fastest([], 4) == []


def gauge(current, voltage="4071000", name="battery"):
    folder = f"/sys/class/power_supply/{name}"
    return {
        "current": f"/sys/class/power_supply/usb/current_now\t0\n{folder}/current_now\t{current}",
        "voltage": f"{folder}/voltage_now\t{voltage}",
    }


def test_watts_of_a_battery_of_all_makers():
    assert android_traits.battery_watts(gauge("-402343")) == pytest.approx(1.63794, rel=1e-4)
    assert android_traits.battery_watts(gauge("402343")) == pytest.approx(1.63794, rel=1e-4)
    assert android_traits.battery_watts(gauge("-402343", name="bms")) is not None
    for bad in (gauge("-402343", "0"), gauge("nan"), gauge("x"), gauge("1", name="usb"), {}):
        assert android_traits.battery_watts(bad) is None


def gauged(idle, busy):
    """Events of a phone whose gauge gives these numbers, idle and while a model runs."""
    second = 10**9
    windows = {"before": (0, 30), "after": (95, 125), "timed": (32, 92)}
    run = []
    for name, (begin, end) in windows.items():
        at = {"begin_ns": begin * second, "end_ns": end * second}
        what = {"k": "timed", "n": 600, "s": 60.0} if name == "timed" else {"which": name}
        run.append({"k": "idle", **what, **at})
        texts = gauge(str(busy if name == "timed" else idle))
        moments = [begin * second + i * second // 10 for i in range((end - begin) * 10)]
        values = {key: [text] * len(moments) for key, text in texts.items()}
        run.append({"k": "sensor", "at_ns": moments, "values": values})
    return run


@pytest.mark.parametrize(
    ("idle", "busy", "watts"),
    [
        (-90_000, -402_343, 1.63794),
        (-90, -402, 1.63654),
        (8_000, 402_343, 1.63794),  # an idle phone with its screen off draws 8 mA: not 8 A
        (14, 402, 1.63654),
        (12_000, 402_343, 1.63794),  # each reading alone might be taken for 48 W
    ],
)
def test_the_unit_of_a_gauge_is_decided_once_for_all_readings(idle, busy, watts):
    meter = android_traits.meter({"power_supplies": {"battery": "Discharging, 83 %"}})
    result = energy_of([gauged(idle, busy)], meter, battery_wh=15.0)
    assert result["scope"] == "battery"
    assert result["busy_w"] == pytest.approx(watts, rel=1e-4)
    assert result["idle_w"] == pytest.approx(watts * idle / busy, rel=1e-4)


@pytest.mark.parametrize("busy", [12_000, 20_000, 3, 9_000_000])
def test_watts_that_no_phone_draws_are_refused(busy):
    meter = android_traits.meter({"power_supplies": {"battery": "Discharging, 83 %"}})
    result = energy_of([gauged(busy // 2, busy)], meter)
    assert result["scope"] is None
    assert result["gross_j"] is None
    (note,) = result["notes"]
    assert note.startswith("not measurable here: unit of current_now unclear (up to ")


@pytest.mark.parametrize(
    ("supplies", "reason"),
    [
        ({"battery": "Discharging, 83 %", "usb": "online 0"}, ""),
        ({"battery": "Charging, 83 %", "usb": "online 1"}, "plugged in; unplug"),
        ({"battery": "Not charging, 100 %", "usb": "online 0"}, "plugged in; unplug"),
        ({}, "does not show its battery"),
        ({"usb": "online 0"}, "names no battery"),
    ],
)
def test_power_is_measured_on_battery_only(supplies, reason):
    facts = {"power_supplies": supplies}
    assert reason in android_traits.no_meter(facts)
    assert (android_traits.meter(facts) is None) == bool(reason)


def test_only_android_is_android():
    assert android_traits.mismatch({"os": "Android 14"}) == ""
    assert "runs Debian" in android_traits.mismatch({"os": "Debian GNU/Linux 12"})


# --- what is done to a phone ------------------------------------------------------------------


class Phone:
    """A script for a FakeShell: a phone with two clusters that heats and cools as told."""

    def __init__(self, statuses=(0,), python=True, **answers):
        self.statuses, self.python, self.answers = list(statuses), python, answers

    def __call__(self, argv):
        if argv[0] in self.answers:
            return self.answers[argv[0]]
        if argv[0] == "getprop":
            return Answer(RECORDED["getprop"]["pixel"])
        if argv[:2] == ("dumpsys", "thermalservice"):
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            return Answer(f"Thermal Status: {status}\n")
        if argv[0] == "sh":
            found = "python /data/local/tmp/edgessl/python-0123456789ab/python\n"
            return Answer(
                (found if self.python else "")
                + "core\ncore\ncore\ncluster 1800000 0 1\ncluster 2400000 2\n"
            )
        if argv[0] == "uname":
            return Answer("5.10.1 aarch64\n")
        return Answer("")


def device_of(phone, monkeypatch):
    slept, runs = [], [[{"k": "facts", "board": None, "cpu": "x"}, {"k": "done"}]]
    shell = FakeShell(phone)
    monkeypatch.setattr("edgessl.devices.android.time.sleep", slept.append)

    def run_processes(device, *arguments):
        shell.run(device.command(), timeout_s=1)
        return runs

    monkeypatch.setattr("edgessl.devices.linux.run_processes", run_processes)
    device = AndroidDevice(Board("android", "adb:S", "pixel"), shell)
    monkeypatch.setattr(AndroidDevice, "runtimes", {})
    return device, shell, slept


def asked(shell):
    return [argv for verb, argv in shell.transcript if verb == "run"]


def first_of(runs):
    return next(iter(android_traits.conditions(runs)))


def test_the_model_is_bound_to_the_fastest_cluster_and_all_is_recorded(monkeypatch):
    device, shell, slept = device_of(Phone(), monkeypatch)
    said = []
    runs = device.measure({"threads": 1}, None, None, said.append)
    python = "/data/local/tmp/edgessl/python-0123456789ab/python"
    assert ("taskset", "4", python) in asked(shell)
    assert runs[0][0]["board"] == "Google Pixel 5"
    assert runs[0][0]["cpu"] == "Qualcomm SM7250"
    assert first_of(runs) == ("bound to cores 2 (mask 4, at most 2400 MHz)")
    assert device.command() == [python]  # only while it is measured
    assert slept == []
    assert not any("cmd" in argv for argv in asked(shell))  # nothing is changed unasked


def test_a_phone_that_cannot_bind_is_measured_and_says_so(monkeypatch):
    device, _, _ = device_of(Phone(taskset=Answer("", 1, "bad mask")), monkeypatch)
    runs = device.measure({"threads": 1}, None, None, print)
    assert "not bound to cores" in first_of(runs)


def test_cores_can_be_chosen(monkeypatch):
    device, shell, _ = device_of(Phone(), monkeypatch)
    device.measure({"threads": 1, "cores": [1, 0]}, None, None, print)
    assert ("taskset", "3", "true") in asked(shell)


def test_a_hot_phone_is_given_time_and_a_phone_that_stays_hot_is_measured_all_the_same(monkeypatch):
    device, _, slept = device_of(Phone(statuses=[3, 2, 0]), monkeypatch)
    said = []
    device.measure({"threads": 1}, None, None, said.append)
    assert len(slept) == 2
    assert said == [f"waiting for the phone to cool down: thermal status {s}" for s in (3, 2)]
    monkeypatch.setattr("edgessl.devices.android.COOL_CAP_S", 0)
    device, _, slept = device_of(Phone(statuses=[4]), monkeypatch)
    assert device.measure({"threads": 1}, None, None, said.append)
    assert slept == []


def test_fixed_performance_is_asked_for_on_wish_and_undone_also_after_a_failure(monkeypatch):
    device, shell, _ = device_of(Phone(), monkeypatch)
    runs = device.measure({"threads": 1, "fixed_performance": True}, None, None, print)
    switched = [argv[-1] for argv in asked(shell) if argv[0] == "cmd"]
    assert switched == ["true", "false"]
    assert "fixed-performance mode: on" in list(android_traits.conditions(runs))

    def fails(*arguments):
        raise EdgeSSLError("lost")

    monkeypatch.setattr("edgessl.devices.linux.run_processes", fails)
    with pytest.raises(EdgeSSLError, match="lost"):
        device.measure({"threads": 1, "fixed_performance": True}, None, None, print)
    assert [argv[-1] for argv in asked(shell) if argv[0] == "cmd"] == switched * 2

    def is_lost(argv):
        if argv[0] == "cmd" and argv[-1] == "false":
            raise BoardUnreachable("no phone any more")
        return Phone()(argv)

    device, shell, _ = device_of(is_lost, monkeypatch)
    monkeypatch.setattr("edgessl.devices.linux.run_processes", fails)
    with pytest.raises(EdgeSSLError, match="lost"):  # the cause, not what came of it
        device.measure({"threads": 1, "fixed_performance": True}, None, None, print)
    verbs = [(verb, argv[0]) for verb, argv in shell.transcript]
    assert ("run", "touch") in verbs
    assert ("remove", FIXED_MARK) not in verbs  # so that the keeper on the phone knows

    text = "Failed to set FIXED_PERFORMANCE mode\nThis is likely unsupported on this device"
    for answer in (Answer("", 255, text), Answer(text)):
        device, shell, _ = device_of(Phone(cmd=answer), monkeypatch)
        runs = device.measure({"threads": 1, "fixed_performance": True}, None, None, print)
        assert "fixed-performance mode: not supported" in list(android_traits.conditions(runs))


def test_a_phone_without_python_tells_what_it_is_and_what_to_do(monkeypatch):
    device, _, _ = device_of(Phone(python=False), monkeypatch)
    facts = device.facts()
    assert device.id.startswith("google-pixel-5-3c-")
    assert facts["os"] == "Android 14"
    assert facts["clusters"][0] == {"cores": "2", "max_mhz": 2400}
    with pytest.raises(EdgeSSLError, match="no Python on") as caught:
        device.measure({"threads": 1}, None, None, print)
    assert caught.value.hint == "edgessl devices setup pixel"


def test_equal_phones_are_told_apart_and_a_maker_is_not_named_twice(monkeypatch):
    one, _, _ = device_of(Phone(python=False), monkeypatch)
    text = RECORDED["getprop"]["pixel"].replace("0A191JEC200123", "0A191JEC200124")
    two, _, _ = device_of(Phone(python=False, getprop=Answer(text)), monkeypatch)
    assert one.id != two.id
    old, _, _ = device_of(
        Phone(getprop=Answer(RECORDED["getprop"]["samsung"]), python=False), monkeypatch
    )
    assert old.facts()["board"] == "Samsung SM-G960F"
    assert old.facts()["cpu"] == "exynos5"


def test_conditions_of_a_whole_run():
    def tel(phase, thermal, battery):
        texts = {"thermal": THERMAL[thermal], "battery": BATTERY[battery], "airplane": "1",
                 "power": RECORDED["power"]["asleep"], "saver": "null"}  # fmt: skip
        return {"k": "tel", "t": 0, "phase": phase, "probes": texts}

    done = {"k": "android", "bound": "bound to cores 7", "fixed": "not asked", "waited_s": 35.0}
    run = [tel("before", "stale_cache", "on_battery"), tel("after", "pixel", "with_log"), done]
    assert list(android_traits.conditions([run])) == [
        "bound to cores 7",
        "waited 35 s for the phone to cool down",
        "thermal status: 0 (none) before, 2 (moderate) after",
        "temperature by Android: hottest after TPU 30.0 C",
        "battery: 67 %, discharging, 33.7 C before, 75 %, charging, plugged in (AC), 35.7 C after",
        "the plug was changed while it ran",
        "screen off, airplane mode on",
    ]
    nothing = [{"k": "tel", "t": 0, "phase": "before", "probes": {}}]
    assert list(android_traits.conditions([nothing])) == [
        "not observable here: throttling (no thermal service)",
        "not observable here: battery",
    ]


# --- the Python for phones --------------------------------------------------------------------


def test_every_piece_is_pinned():
    assert len({piece.name for piece in PIECES}) == len(PIECES) == 9
    for piece in PIECES:
        assert len(piece.sha256) == 64
        assert len(piece.sha1) == 40
        assert piece.path.endswith(("_arm64.deb", "_all.deb"))
        assert all(url.startswith("https://") for url in piece.urls)


def deb(members, damaged=False):
    """A Debian package with these files and links."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:xz") as out:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                out.addfile(entry)
            else:
                entry.size = len(content)
                out.addfile(entry, io.BytesIO(content))
    data = raw.getvalue()[: len(raw.getvalue()) // 2] if damaged else raw.getvalue()
    parts = b"!<arch>\n"
    for name, part in (("debian-binary", b"2.0\n"), ("data.tar.xz", data)):
        parts += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(part):<10}`\n".encode()
        parts += part + b"\n" * (len(part) % 2)
    return parts


def small_bundle():
    system = "./lib/aarch64-linux-gnu"
    members = {f"{system}/{name}": b"library" for name in android_bundle.LIBRARIES}
    members[f"{system}/libz.so.1"] = "libz.so.1.2.13"
    members[f"{system}/libz.so.1.2.13"] = b"linked"
    return members | {
        "./usr/bin/python3.11": b"python",
        "./usr/lib/python3.11/json/__init__.py": b"code",
        "./usr/lib/python3.11/test/test_json.py": b"left out",
        "./usr/lib/python3.11/../../../../etc/passwd": b"left out",
        "./usr/lib/python3.11/sitecustomize.py": "/etc/python3.11/sitecustomize.py",
        "./etc/passwd": b"left out",
    }


def test_only_what_is_named_is_taken_out_of_packages(tmp_path):
    (tmp_path / "a.deb").write_bytes(deb(small_bundle()))
    android_bundle.build([tmp_path / "a.deb"], tmp_path / "a.tar")
    android_bundle.build([tmp_path / "a.deb"], tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as made:
        names = made.getnames()
        assert all(entry.isreg() for entry in made)
        assert made.extractfile("lib/libz.so.1").read() == b"linked"
        assert made.getmember("python").mode == 0o755
    assert set(names) == {"python", "bin/python3.11", "lib/python3.11/json/__init__.py"} | {
        f"lib/{name}" for name in android_bundle.LIBRARIES
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (deb({"./usr/bin/python3.11": b""}), "the packages lack lib/ld-linux-aarch64.so.1"),
        (deb(small_bundle(), damaged=True), "is damaged"),
        (b"!<arch>\n" + b"x" * 200, "is no Debian package"),
        (b"", "is no Debian package"),
        (gzip.compress(b"x", mtime=0), "is no Debian package"),
    ],
)
def test_packages_that_are_none(content, message, tmp_path):
    (tmp_path / "a.deb").write_bytes(content)
    with pytest.raises(FileInvalid, match=message):
        android_bundle.build([tmp_path / "a.deb"], tmp_path / "a.tar")


@pytest.fixture
def mirror(tmp_path):
    (tmp_path / "mirror").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "mirror"))

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path / "mirror", f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_packages_are_fetched_once_and_only_with_the_right_hash(mirror, tmp_path, monkeypatch):
    folder, url = mirror
    content = b"a package"
    sums = [hashlib.new(name, content).hexdigest() for name in ("sha256", "sha1")]
    piece = Piece("pool/libx1_1.0_arm64.deb", len(content), *sums)
    monkeypatch.setattr("edgessl.devices.android_pieces.MIRROR", url)
    monkeypatch.setattr("edgessl.devices.android_pieces.SNAPSHOT", f"{url}/file")
    (folder / "pool").mkdir()
    (folder / "pool/libx1_1.0_arm64.deb").write_bytes(content + b", but a newer one")
    cache, said = tmp_path / "cache", []
    with pytest.raises(EdgeSSLError, match=r"another hash.*404") as caught:
        android_bundle.fetch([piece], cache, said.append)
    assert str(cache / f"libx1-{sums[0][:16]}.deb") in caught.value.hint
    assert list(cache.iterdir()) == []
    (folder / "file").mkdir()
    (folder / "file" / sums[1]).write_bytes(content)  # the place that keeps old files
    (found,) = android_bundle.fetch([piece], cache, said.append)
    assert found.read_bytes() == content
    shutil.rmtree(folder)
    assert android_bundle.fetch([piece], cache, said.append) == [found]
    found.write_bytes(b"changed")
    with pytest.raises(EdgeSSLError, match="could not be fetched"):
        android_bundle.fetch([piece], cache, said.append)


def test_a_phone_with_another_processor_is_refused_before_anything_is_fetched(tmp_path):
    def script(argv):
        return Answer("armv7l\n") if argv[0] == "uname" else Answer("", 127, "not found")

    with pytest.raises(EdgeSSLError, match="'armv7l' processor") as caught:
        android_bundle.bring(FakeShell(script), print, cache=tmp_path)
    assert "--device browser" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def kept_piece(cache, content):
    """A package that is in the cache already."""
    sums = [hashlib.new(name, content).hexdigest() for name in ("sha256", "sha1")]
    piece = Piece("pool/small_1.0_arm64.deb", len(content), *sums)
    cache.mkdir()
    (cache / f"{piece.name}-{sums[0][:16]}.deb").write_bytes(content)
    return piece


@pytest.mark.adbd
@pytest.mark.slow
@pytest.mark.skipif(bool(adb_devices.missing()), reason=adb_devices.missing() or "there")
def test_a_phone_that_is_full_when_it_unpacks_keeps_nothing_half(tmp_path, monkeypatch):
    members = small_bundle() | {"./usr/bin/python3.11": os.urandom(120_000)}
    piece = kept_piece(tmp_path / "cache", deb(members))  # twice is more than the phone has
    (tmp_path / "adb").mkdir()
    with (
        adb_devices.private_server(tmp_path / "adb") as variables,
        adb_devices.real_adbd(tmp_path / "phone") as serial,
    ):
        for name in ("ANDROID_ADB_SERVER_PORT", "ADB_MDNS", "ADB_LOCAL_TRANSPORT_MAX_PORT"):
            monkeypatch.setenv(name, variables[name])
        shell = AdbShell(serial)
        shell.home = "/data/local/tmp/small"
        said = []
        with pytest.raises(DiskFull, match=r"no space left on adb:.* to unpack python-") as caught:
            android_bundle.bring(shell, said.append, [piece], tmp_path / "cache")
        assert "nothing half unpacked" in caught.value.hint
        assert said == ["Python 3.11: pushing 0 MB"]
        work = shell.workdir.rpartition("/")[2]
        assert shell.run(["ls", shell.home], timeout_s=20).split() == [work]
        shell.close()


def test_a_phone_that_is_lost_when_it_unpacks_is_named(tmp_path):
    def script(argv):
        if argv[0] == "tar":
            raise BoardUnreachable("the cable was pulled")
        return Answer("aarch64\n") if argv[0] == "uname" else Answer("")

    shell = FakeShell(script)
    piece = kept_piece(tmp_path / "cache", deb(small_bundle()))
    with pytest.raises(BoardUnreachable, match="the cable was pulled"):
        android_bundle.bring(shell, print, [piece], tmp_path / "cache")
    assert [argv for verb, argv in shell.transcript if verb == "remove"][-2:] == [
        (f"{Path(android_bundle.remote_python(shell.home, [piece])).parent}{end}",)
        for end in (".part", ".tar")
    ]


@pytest.mark.adbd
@pytest.mark.slow
@pytest.mark.skipif(bool(adb_devices.missing()), reason=adb_devices.missing() or "there")
def test_a_phone_is_set_up_and_measured_with_right_answers(tmp_path, monkeypatch):
    """The real adbd, an arm64 root without a C library, the real wheels: emulated, and marked."""
    pool = adb_devices.STANDIN / "pool"
    pieces = [Piece(**row) for row in json.loads((pool / "pieces.json").read_text())]
    for piece in pieces:  # where Debian has the pinned version still: the same file
        pinned = [p for p in PIECES if p.path.rpartition("/")[2] == piece.path.rpartition("/")[2]]
        assert all(p.sha256 == piece.sha256 for p in pinned)
    path, weights = write_onnx(tmp_path)
    stage = write_stage(tmp_path / "stage", [path], "onnx", *images_and_logits(weights))
    (tmp_path / "adb").mkdir()
    bring = android_bundle.bring
    monkeypatch.setattr(android_bundle, "bring", lambda shell, say: bring(shell, say, pieces, pool))
    with (
        adb_devices.private_server(tmp_path / "adb") as variables,
        adb_devices.real_adbd(tmp_path / "phone") as serial,
    ):
        for name in ("ANDROID_ADB_SERVER_PORT", "ADB_MDNS", "ADB_LOCAL_TRANSPORT_MAX_PORT"):
            monkeypatch.setenv(name, variables[name])
        device = open_board(Board("android", f"adb:{serial}", "pixel"))
        assert isinstance(device.shell, AdbShell)
        said = []
        made, new = setup.set_up(device, "onnxruntime", say=said.append)
        assert new
        assert "CPUExecutionProvider" in made.providers
        assert said[0].startswith("Python 3.11: pushing")
        assert device.traits.mismatch(device.facts()) == ""
        result = bench(device, stage, tmp_path / "out", preset=MINI)
        assert result.result_kind == "emulated"
        assert "EMULATED" in result.verdicts
        assert "WRONG_ANSWERS" not in result.verdicts
        assert result.accuracy.n == N
        assert result.accuracy.agreement == 1
        assert result.accuracy.top1 == pytest.approx(60 / 90)
        assert result.device["board"] == "Google Pixel 5"
        assert result.device["affinity"] == [1]  # the faster of its two clusters
        conditions = "\n".join(result.conditions)
        assert "bound to cores 1 (mask 2, at most 2400 MHz)" in conditions
        assert "thermal status: 0 (none) before, 0 (none) after" in conditions
        assert "battery: 83 %, discharging, 27.4 C before" in conditions
        assert "screen off, airplane mode on" in conditions
        device.close()
        device.close()
        kept = sorted(path.name for path in (tmp_path / "phone/edgessl").iterdir())
        assert kept == [Path(device.python).parent.name, "runtimes"]
