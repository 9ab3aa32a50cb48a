"""The agent by its parts: syntax, imports, and what it reads, against files written by hand."""

import ast
import itertools
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from tiny_bench import gone

from edgessl.core.artifact import InputSpec
from edgessl.core.images import to_model_input
from edgessl.devices.agent_file import PACKAGE, agent_bytes, agent_file
from edgessl.devices.agents.edgessl_agent import (
    answers,
    emulation,
    facts,
    pixels,
    probes,
    processor,
    reading,
    run_litert,
    software,
    telemetry,
)
from edgessl.devices.agents.edgessl_agent.bench import Bench
from edgessl.devices.agents.edgessl_agent.channel import Failed
from edgessl.devices.agents.edgessl_agent.profile import table
from edgessl.devices.agents.edgessl_agent.timing import Schedule, take_samples

MODULES = sorted(PACKAGE.glob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_python_38_can_read_it_and_it_imports_only_itself_the_library_and_numpy(module):
    tree = ast.parse(module.read_text(), feature_version=(3, 8))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1  # never up to edgessl
    assert names - {"numpy"} <= set(sys.stdlib_module_names)
    # facts must work where nothing is installed: numpy is never imported at the top
    top = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    assert not any("numpy" in ast.unparse(n) for n in top)


def test_it_travels_as_one_file_of_the_same_bytes_every_time():
    assert agent_bytes() == agent_bytes() == agent_file().read_bytes()
    with zipfile.ZipFile(agent_file()) as archive:
        entries = archive.infolist()
    inside = {e.filename for e in entries}
    assert inside == {"__main__.py"} | {f"edgessl_agent/{path.name}" for path in MODULES}
    assert {e.date_time for e in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {e.compress_type for e in entries} == {zipfile.ZIP_STORED}


def test_facts_run_isolated_from_every_package():
    run = subprocess.run(
        [sys.executable, "-I", "-S", agent_file(), "facts"],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    event = json.loads(run.stdout)
    assert event["k"] == "facts"
    assert event["runtimes"] == {}
    assert event["wheels"]["python"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert event["wheels"]["bits"] == 64
    assert event["disk_free_mb"] > 0


def test_facts_with_runtimes_open_each_that_is_there():
    pytest.importorskip("onnxruntime", reason="opened here")
    run = subprocess.run(
        [sys.executable, agent_file(), "facts", "--runtimes"],
        capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    opened = json.loads(run.stdout)["opened"]
    assert "CPUExecutionProvider" in opened["onnxruntime"]["providers"]
    assert "tensorrt" not in opened  # absent, which is not an error


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_pixels_become_the_same_input_as_on_the_workstation(layout):
    spec = InputSpec(height=5, width=7, resize=8, layout=layout, value_range=(-1.0, 1.0))
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    preprocess = pixels.make_preprocess(spec.model_dump(mode="json"))
    ours = np.concatenate([preprocess(image) for image in images])
    np.testing.assert_array_equal(ours, to_model_input(images, spec))
    assert ours.flags.c_contiguous


def test_softmax_holds_for_large_logits():
    probabilities, answer = pixels.make_postprocess()(np.array([[1000.0, 1001.0]], np.float32))
    np.testing.assert_allclose(probabilities, [1 / (1 + np.e), np.e / (1 + np.e)], rtol=1e-6)
    assert answer == 1


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_rows_of_a_pack_are_streamed_as_numpy_would_load_them(save, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3), dtype=np.uint8)
    save(tmp_path / "pack.npz", images=images, reference=np.float32([[1, 2]] * 5))
    streamed = list(answers.rows(str(tmp_path / "pack.npz"), "images"))
    np.testing.assert_array_equal(np.stack(streamed), images)
    assert next(answers.rows(str(tmp_path / "pack.npz"), "reference")).tolist() == [1, 2]


def test_a_pickled_pack_is_refused(tmp_path):
    np.savez(tmp_path / "pack.npz", images=np.array([{"a": 1}], object))
    with pytest.raises(Failed, match="not a plain array"):
        next(answers.rows(str(tmp_path / "pack.npz"), "images"))


def test_logits_are_compared_relative_to_the_largest():
    want = np.float32([[4.0, 0.0], [0.0, 3.0]])
    got = want + np.float32([[0.0, 0.2], [0.0, 0.0]])
    result = answers.compare(got, want)
    assert result["max_abs"] == pytest.approx(0.2 / 4)
    assert result["cosine"] == pytest.approx(4 / np.hypot(4, 0.2))
    assert result["agreement"] == 1
    got[0, 1] = np.nan
    assert answers.compare(got, want)["max_abs"] == answers.BROKEN
    assert answers.compare(got[:, :1], want)["max_abs"] == answers.BROKEN


def fake_board(monkeypatch, texts):
    """Let every module read these files, and see no other."""
    folders = {p.rsplit("/", 1)[0] for p in texts} | set(texts)
    for module in (telemetry, facts, emulation):
        monkeypatch.setattr(module, "read", lambda path: texts.get(path, ""))
    for module in (telemetry, facts):
        monkeypatch.setattr(module, "number", lambda p: float(texts[p]) if texts.get(p) else None)
    found = lambda p: sorted(f for f in folders if f.startswith(p.split("*")[0]))  # noqa: E731
    monkeypatch.setattr(telemetry.glob, "glob", found)


def test_temperatures_leave_out_unpowered_and_constant_sensors(monkeypatch):
    zone = "/sys/class/thermal/thermal_zone"
    texts = {
        f"{zone}0/type": "cpu-thermal", f"{zone}0/temp": "45277",
        f"{zone}1/type": "PMIC-Die", f"{zone}1/temp": "100000",
        f"{zone}2/type": "cv0", f"{zone}2/temp": "-256000",
        f"{zone}3/type": "battery", f"{zone}3/temp": "31",
        f"{zone}4/type": "iwlwifi", f"{zone}4/temp": "",
    }  # fmt: skip
    fake_board(monkeypatch, texts)
    zones = [f"{zone}{i}" for i in range(5)]
    monkeypatch.setattr(telemetry.glob, "glob", lambda pattern: zones)
    assert telemetry.temperatures() == {"cpu-thermal0": 45.3, "battery3": 31.0}


def test_clocks_by_policy_and_fast_cores_told_from_slow_ones(monkeypatch):
    policies = [
        "/sys/devices/system/cpu/cpufreq/policy0",
        "/sys/devices/system/cpu/cpufreq/policy4",
    ]
    texts = {}
    for policy, cores, most in zip(
        policies, ("0 1 2 3", "4 5"), ("1800000", "2400000"), strict=True
    ):
        values = {"scaling_governor": "ondemand", "scaling_cur_freq": "1500398",
                  "scaling_max_freq": "1800000", "related_cpus": cores,
                  "cpuinfo_max_freq": most}  # fmt: skip
        texts |= {f"{policy}/{name}": value for name, value in values.items()}
    fake_board(monkeypatch, texts)
    monkeypatch.setattr(telemetry.glob, "glob", lambda pattern: policies)
    seen = telemetry.clocks()
    assert seen["policy0"] == {
        "governor": "ondemand", "cores": "0 1 2 3", "cur_mhz": 1500, "min_mhz": None,
        "max_mhz": 1800, "hardware_max_mhz": 1800,
    }  # fmt: skip
    assert facts._clusters(seen) == [
        {"cores": "0 1 2 3", "max_mhz": 1800}, {"cores": "4 5", "max_mhz": 2400},
    ]  # fmt: skip


def test_busy_time_counts_steal_but_neither_idle_nor_waiting_for_disks(monkeypatch):
    # user nice system idle iowait irq softirq steal guest guest_nice; guest is inside user
    text = "cpu  100 20 30 9999 8888 4 5 6 50 0\ncpu0 1 1 1 1 1 1 1 1 1 1"
    monkeypatch.setattr(telemetry, "read", lambda path: text if path == "/proc/stat" else "")
    monkeypatch.setattr(telemetry.os, "sysconf", lambda name: 100)
    assert telemetry.busy_seconds() == pytest.approx(1.65)
    monkeypatch.setattr(telemetry, "read", lambda path: "")
    assert telemetry.busy_seconds() is None  # some phones hide it
    assert telemetry.swapped_pages() is None


@pytest.mark.parametrize(
    ("cpu", "machine", "files", "link", "named"),
    [
        ({}, "aarch64", {}, "/usr/bin/python3.11", None),
        ({"Model": "Raspberry Pi 4"}, "aarch64", {}, "/usr/bin/qemu-aarch64-static", "qemu-user"),
        ({"vendor_id": "GenuineIntel"}, "armv7l", {}, "/usr/bin/python3", "qemu-user"),
        ({"vendor_id": "GenuineIntel"}, "x86_64", {}, "/usr/bin/python3", None),
        ({}, "aarch64", {"/proc/device-tree/compatible": "linux,dummy-virt"}, "/p", "qemu-system"),
    ],
)  # fmt: skip
def test_emulation_shows_in_what_the_emulator_does_not_disguise(
    cpu, machine, files, link, named, monkeypatch
):
    monkeypatch.setattr(emulation, "read", lambda path: files.get(path, ""))
    monkeypatch.setattr(emulation.os, "readlink", lambda path: link)
    assert emulation.emulator(cpu, machine) == named


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("processor : 0\nCPU implementer : 0x41\nCPU part : 0xd08\nHardware : BCM2835",
         "Cortex-A72"),  # Hardware is wrong there by design
        ("CPU implementer : 0x41\nCPU part : 0xd05\nprocessor : 4\nCPU part : 0xd0b",
         "Cortex-A55 + Cortex-A76"),
        ("CPU implementer : 0x41\nCPU part : 0xfff\nHardware : Qualcomm SM8250", "Qualcomm SM8250"),
        ("vendor_id : GenuineIntel\nmodel name : Intel(R) N100", "Intel(R) N100"),
        ("", "riscv64"),
    ],
)  # fmt: skip
def test_arm_cores_are_named_by_their_part_numbers(text, named, monkeypatch):
    monkeypatch.setattr(processor, "read", lambda path: text)
    monkeypatch.setattr(reading, "read", lambda path: text)
    assert processor.processor("riscv64") == named


def test_a_runtime_that_does_not_load_is_told_from_one_that_is_not_there(monkeypatch, tmp_path):
    package = tmp_path / "tflite_runtime"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "interpreter.py").write_text("raise ImportError('_ARRAY_API not found')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(software, "RUNTIMES", {"litert": ("tflite_runtime.interpreter",)})
    monkeypatch.setattr(software, "versions", lambda: {"tflite-runtime": "2.14.0", "numpy": "2.1"})
    with pytest.raises(Failed, match=r"2\.14\.0 does not load: _ARRAY_API.*needs numpy < 2") as e:
        software.import_runtime("litert")
    assert e.value.kind == "BrokenRuntime"
    monkeypatch.setattr(software, "RUNTIMES", {"litert": ("not_there",)})
    with pytest.raises(Failed) as e:
        software.import_runtime("litert")
    assert e.value.kind == "MissingRuntime"


def test_probes_read_programs_files_and_patterns_and_leave_out_what_fails(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"in_{name}").write_text(f"{name}\nmore\0\n")
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: reading must not wait
    flood = [sys.executable, "-c", "print('x' * 10**6)"]
    asked = {
        "said": {"argv": ["echo", "throttled=0x0"]},
        "absent": {"argv": ["no-such-program"]},
        "failed": {"argv": ["false"]},
        "flood": {"argv": flood},
        "file": {"file": str(tmp_path / "in_a")},
        "all": {"file": str(tmp_path / "in_*")},
        "pipe": {"file": str(tmp_path / "pipe")},
        "none": {"file": str(tmp_path / "no_*")},
    }
    texts = probes.read_all([{"name": name, **how} for name, how in asked.items()])
    assert set(texts) == {"said", "flood", "file", "all"}
    assert texts["said"] == "throttled=0x0"
    assert texts["file"] == "a\nmore"
    assert texts["all"] == f"{tmp_path}/in_a\ta more\n{tmp_path}/in_b\tb more"
    assert len(texts["flood"]) == probes.LIMIT


def test_a_probe_that_hangs_is_killed_with_what_it_started(tmp_path):
    script = f"(sleep 300; echo late) & echo $! > {tmp_path}/child; wait"
    assert probes.output_of(["sh", "-c", script], time_s=1.0) == ""
    child = int((tmp_path / "child").read_text())
    assert gone(child)


def test_cooling_ends_at_the_target_or_at_the_cap_and_never_waits_blindly(monkeypatch):
    from edgessl.devices.agents.edgessl_agent import bench

    now = itertools.count()
    monkeypatch.setattr(bench.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(bench.time, "sleep", lambda s: None)

    def readings(temperatures, cap_s):
        said = []
        made = object.__new__(Bench)
        made.timing = {"cool_to_c": 43.0, "cooldown_cap_s": cap_s}
        made.tell = said.append
        left = iter(temperatures)
        monkeypatch.setattr(bench, "temperatures", lambda: next(left))
        made.cool_down()
        return len(said)

    assert readings([{"a": 60.0}, {"a": 50.0}, {"a": 42.0}, {"a": 70.0}], 300) == 2
    assert readings([{"a": 60.0}] * 99, 5) == 4
    assert readings([{}], 300) == 0


class PretendedTime:
    """A clock in nanoseconds that only moves when something takes time."""

    def __init__(self, monkeypatch):
        from edgessl.devices.agents.edgessl_agent import timing

        self.now = 1_000
        monkeypatch.setattr(timing, "clock", lambda: self.now)
        monkeypatch.setattr(timing.time, "sleep", self.sleep)

    def sleep(self, seconds):
        self.now += round(seconds * 1e9)


def test_at_a_rate_each_waits_for_its_turn_and_late_ones_are_counted(monkeypatch):
    time = PretendedTime(monkeypatch)
    timing = {"timed_runs": 10, "timed_s": 0.0, "timed_cap_s": 100.0}
    took_ms = iter([5, 5, 5, 250, 5, 5, 5, 5, 5, 5])
    told = []

    def sample(image):
        ns = next(took_ms) * 10**6
        time.now += ns
        return {"infer": ns, "e2e_from_uint8": ns}

    ended = take_samples(
        sample, [None], Schedule(timing, 10.0), lambda k, line: told.append(line), lambda p: None
    )
    at_ms = [us / 1000 for line in told for us in line["at_us"]]
    # the fourth runs past two turns: the fifth begins at once, late, and the rest follow it
    assert at_ms == pytest.approx([0, 100, 200, 300, 550, 650, 750, 850, 950, 1050])
    assert ended["late"] == 1
    assert ended["n"] == 10
    assert ended["end_ns"] - ended["begin_ns"] == 1_055_000_000
    assert [ns for line in told for ns in line["ns"]["infer"]][3] == 250_000_000  # as it was


def test_lines_of_samples_are_bounded_and_nothing_is_dropped(monkeypatch):
    time = PretendedTime(monkeypatch)
    timing = {"timed_runs": 10_000, "timed_s": 0.0, "timed_cap_s": 100.0}
    told = []

    def sample(image):
        time.now += 1000
        return {"infer": 1000, "e2e_from_uint8": 1000}

    ended = take_samples(
        sample, [1, 2], Schedule(timing, None), lambda k, line: told.append(line), lambda p: None
    )
    assert [line["first"] for line in told] == [0, 4096, 8192]
    assert sum(len(line["at_us"]) for line in told) == ended["n"] == 10_000
    assert ended["late"] == 0


def test_layers_of_one_name_are_told_apart_by_their_place_and_warm_up_runs_left_out():
    runs = [[("conv", "Conv", 50.0), ("reorder", "R", 9.0), ("reorder", "R", 1.0)]] * 3
    runs += [[("conv", "Conv", 30.0), ("reorder", "R", 6.0), ("reorder", "R", 4.0)]] * 5
    rows = table([row for run in runs for row in run], len(runs))
    assert [(r["name"], r["p50"]) for r in rows] == [
        ("conv", 30.0),
        ("reorder", 6.0),
        ("reorder", 4.0),
    ]
    assert sum(r["share"] for r in rows) == pytest.approx(1)


class Interpreter:
    """What LiteRT tells of its operators: index, name, tensors in and out."""

    def __init__(self, ops, output):
        self.ops, self.output = ops, output

    def _get_ops_details(self):
        names = ("index", "op_name", "inputs", "outputs")
        return [dict(zip(names, (i, *op), strict=True)) for i, op in enumerate(self.ops)]

    def get_output_details(self):
        return [{"index": self.output}]


# as ai-edge-litert 2.3.0 lists an int8 file: HARD_SWISH stays with the kernels of its own
PARTLY = [
    ("PAD", [0, 8], [10]), ("CONV_2D", [10, 7, 17], [11]), ("HARD_SWISH", [11], [12]),
    ("DEPTHWISE_CONV_2D", [12, 5, 6], [13]), ("CONV_2D", [13, 9, 4], [14]), ("MEAN", [14, 3], [15]),
    ("FULLY_CONNECTED", [15, 2, 1], [16]),
    ("DELEGATE", [0, 7, 8, 17], [11]), ("DELEGATE", [1, 2, 3, 4, 5, 6, 9, 12], [16]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("ops", "providers", "nodes"),
    [
        (PARTLY, ["XNNPACK", "builtin"], {"XNNPACK": 6, "builtin": 1}),
        ([*PARTLY[:7], ("DELEGATE", [0, 1, 2], [16])], ["XNNPACK"], {"XNNPACK": 7}),
        (PARTLY[:7], ["builtin"], None),
    ],
)
def test_operators_that_no_delegate_took_are_counted(ops, providers, nodes):
    told = run_litert._delegated(Interpreter(ops, 16))
    assert told["providers"] == providers
    assert (told["placement"] or {"nodes": None})["nodes"] == nodes


def test_a_litert_that_lists_no_operators_proves_no_backend():
    assert run_litert._delegated(object()) == {"providers": None}
