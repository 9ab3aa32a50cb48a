"""The agent by its parts: syntax, imports, and what it reads, against files written by hand."""

import ast
import importlib.util
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from edgessl.core.artifact import InputSpec
from edgessl.core.images import to_model_input
from edgessl.devices.base import AGENT

RUNTIMES = {"openvino", "onnxruntime", "ai_edge_litert", "tflite_runtime"}


@pytest.fixture
def agent():
    spec = importlib.util.spec_from_file_location("edgessl_agent", AGENT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_python_38_can_read_it_and_it_imports_only_the_standard_library_and_numpy():
    tree = ast.parse(AGENT.read_text(), feature_version=(3, 8))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    assert names - {"numpy"} <= set(sys.stdlib_module_names)
    # facts must work where nothing is installed: numpy is never imported at the top
    top = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    assert not any("numpy" in ast.unparse(n) for n in top)


def test_runtimes_are_the_declared_ones(agent):
    assert {m.split(".")[0] for row in agent.RUNTIMES.values() for m in row} == RUNTIMES


def test_facts_run_isolated_from_every_package():
    run = subprocess.run(
        [sys.executable, "-I", "-S", AGENT, "facts"], capture_output=True, check=True, timeout=60
    )
    event = json.loads(run.stdout)
    assert event["k"] == "facts"
    assert event["runtimes"] == {}


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_pixels_become_the_same_input_as_on_the_workstation(agent, layout):
    spec = InputSpec(height=5, width=7, resize=8, layout=layout, value_range=(-1.0, 1.0))
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    preprocess = agent.make_preprocess(spec.model_dump(mode="json"))
    ours = np.concatenate([preprocess(image) for image in images])
    np.testing.assert_array_equal(ours, to_model_input(images, spec))
    assert ours.flags.c_contiguous


def test_softmax_holds_for_large_logits(agent):
    probabilities, answer = agent.make_postprocess()(np.array([[1000.0, 1001.0]], np.float32))
    np.testing.assert_allclose(probabilities, [1 / (1 + np.e), np.e / (1 + np.e)], rtol=1e-6)
    assert answer == 1


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_rows_of_a_pack_are_streamed_as_numpy_would_load_them(agent, save, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3), dtype=np.uint8)
    save(tmp_path / "pack.npz", images=images, reference=np.float32([[1, 2]] * 5))
    streamed = list(agent.rows(str(tmp_path / "pack.npz"), "images"))
    np.testing.assert_array_equal(np.stack(streamed), images)
    assert next(agent.rows(str(tmp_path / "pack.npz"), "reference")).tolist() == [1, 2]


def test_a_pickled_pack_is_refused(agent, tmp_path):
    np.savez(tmp_path / "pack.npz", images=np.array([{"a": 1}], object))
    with pytest.raises(agent.Failed, match="not a plain array"):
        next(agent.rows(str(tmp_path / "pack.npz"), "images"))


def test_logits_are_compared_relative_to_the_largest(agent):
    want = np.float32([[4.0, 0.0], [0.0, 3.0]])
    got = want + np.float32([[0.0, 0.2], [0.0, 0.0]])
    result = agent.compare(got, want)
    assert result["max_abs"] == pytest.approx(0.2 / 4)
    assert result["cosine"] == pytest.approx(4 / np.hypot(4, 0.2))
    assert result["agreement"] == 1
    got[0, 1] = np.nan
    assert agent.compare(got, want)["max_abs"] == agent.BROKEN
    assert agent.compare(got[:, :1], want)["max_abs"] == agent.BROKEN


def fake_board(agent, monkeypatch, texts):
    folders = {p.rsplit("/", 1)[0] for p in texts}
    monkeypatch.setattr(agent, "read", lambda path: texts.get(path, ""))
    monkeypatch.setattr(
        agent.glob, "glob", lambda p: sorted(f for f in folders if f.startswith(p.split("*")[0]))
    )


def test_temperatures_leave_out_unpowered_and_constant_sensors(agent, monkeypatch):
    zone = "/sys/class/thermal/thermal_zone"
    fake_board(
        agent,
        monkeypatch,
        {
            f"{zone}0/type": "cpu-thermal", f"{zone}0/temp": "45277",
            f"{zone}1/type": "PMIC-Die", f"{zone}1/temp": "100000",
            f"{zone}2/type": "cv0", f"{zone}2/temp": "-256000",
            f"{zone}3/type": "battery", f"{zone}3/temp": "31",
            f"{zone}4/type": "iwlwifi", f"{zone}4/temp": "",
        },
    )  # fmt: skip
    assert agent.temperatures() == {"cpu-thermal0": 45.3, "battery3": 31.0}


def test_clocks_and_governor_by_policy(agent, monkeypatch):
    policy = "/sys/devices/system/cpu/cpufreq/policy0"
    values = {"governor": "ondemand", "cur_freq": "1500398", "max_freq": "1800000"}
    fake_board(agent, monkeypatch, {f"{policy}/scaling_{k}": v for k, v in values.items()})
    assert agent.clocks() == {
        "policy0": {"governor": "ondemand", "cur_mhz": 1500, "min_mhz": None, "max_mhz": 1800}
    }


def test_busy_time_counts_steal_but_neither_idle_nor_waiting_for_disks(agent, monkeypatch):
    # user nice system idle iowait irq softirq steal guest guest_nice; guest is inside user
    text = "cpu  100 20 30 9999 8888 4 5 6 50 0\ncpu0 1 1 1 1 1 1 1 1 1 1"
    monkeypatch.setattr(agent, "read", lambda path: text if path == "/proc/stat" else "")
    monkeypatch.setattr(agent.os, "sysconf", lambda name: 100)
    assert agent.busy_seconds() == pytest.approx(1.65)
    monkeypatch.setattr(agent, "read", lambda path: "")
    assert agent.busy_seconds() is None  # some phones hide it
    assert agent.swapped_pages() is None


def test_cooling_ends_at_the_target_or_at_the_cap_and_never_waits_blindly(agent, monkeypatch):
    now = itertools.count()
    monkeypatch.setattr(agent.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(agent.time, "sleep", lambda s: None)

    def readings(temperatures, cap_s):
        said = []
        bench = object.__new__(agent.Bench)
        bench.timing = {"cool_to_c": 43.0, "cooldown_cap_s": cap_s}
        bench.tell = said.append
        left = iter(temperatures)
        monkeypatch.setattr(agent, "temperatures", lambda: next(left))
        bench.cool_down()
        return len(said)

    assert readings([{"a": 60.0}, {"a": 50.0}, {"a": 42.0}, {"a": 70.0}], 300) == 2
    assert readings([{"a": 60.0}] * 99, 5) == 4
    assert readings([{}], 300) == 0
