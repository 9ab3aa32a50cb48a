"""Probes, power readings, idle, a fixed rate and the profile of layers, by a real agent."""

import dataclasses
import os
import sys

import pytest
from tiny_bench import MINI, gone, images_and_logits, leftovers, measure, write_onnx, write_stage

from edgessl.devices import events
from edgessl.devices.agents.edgessl_agent.run_litert import LiteRt
from edgessl.devices.base import Board
from edgessl.devices.linux import LinuxDevice
from edgessl.devices.shell import LocalShell


@pytest.fixture(scope="module")
def tiny_onnx(tmp_path_factory):
    pytest.importorskip("onnx", reason="the tiny model is built with onnx")
    return write_onnx(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def stage(tiny_onnx, tmp_path):
    pytest.importorskip("onnxruntime", reason="runs the tiny model")
    path, weights = tiny_onnx
    return write_stage(tmp_path / "stage", [path], "onnx", *images_and_logits(weights))


@pytest.fixture
def device():
    device = LinuxDevice(Board("local"), LocalShell())
    yield device
    assert leftovers(device) == []
    device.close()


def test_power_is_read_while_idle_and_while_timed_and_never_else(device, stage, tmp_path):
    (tmp_path / "power1_input").write_text("2500000\n")
    meter = {
        "hz": 50,
        "probes": [
            {"name": "power", "file": str(tmp_path / "power*_input")},
            {"name": "reader", "argv": ["sh", "-c", "echo $PPID"]},
            {"name": "broken", "argv": ["false"]},
        ],
    }
    (run,) = measure(device, stage, meter=meter, idle_s=0.3)
    readings = [
        (at, event["values"]["power"][i], event["values"]["reader"][i])
        for event in events.of_kind(run, "sensor")
        for i, at in enumerate(event["at_ns"])
    ]
    assert "broken" not in next(iter(events.of_kind(run, "sensor")))["values"]
    before, after = events.of_kind(run, "idle")
    timed = events.last(run, "timed")
    assert [before["which"], after["which"]] == ["before", "after"]
    windows = [(w["begin_ns"], w["end_ns"]) for w in (before, timed, after)]
    assert windows == sorted(windows)
    moments = [at for at, _, _ in readings]
    assert moments == sorted(moments)
    for begin, end in windows:
        assert any(begin <= at <= end for at in moments)
    # one reading can be under way when the window ends
    outside = [at for at in moments if not any(b <= at <= e for b, e in windows)]
    assert len(outside) <= len(windows)
    assert {text for _, text, _ in readings} == {f"{tmp_path}/power1_input\t2500000"}
    (reader,) = {pid for _, _, pid in readings}
    assert gone(reader)  # a process of its own, and not there any more
    facts = events.last(run, "facts")
    assert "power draw" not in facts["not_observable"]
    end, start = events.telemetry(run, "end"), events.telemetry(run, "start")
    assert end["helpers_s"] >= start["helpers_s"]


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores: one for the model, one for what watches",
)
def test_what_watches_leaves_the_cores_of_the_model_and_its_work_counts_as_ours(device, stage):
    first, *_ = mine = sorted(os.sched_getaffinity(0))
    allowed = ["sed", "-n", "s/^Cpus_allowed_list:[^0-9]*//p"]
    burn = "sum(range(10**6)); import os; print(sorted(os.sched_getaffinity(0)))"
    probes = [
        {"name": "meter", "argv": ["sh", "-c", 'exec "$@" /proc/$PPID/status', "sh", *allowed]},
        {"name": "program", "argv": [sys.executable, "-c", burn]},
    ]
    preset = dataclasses.replace(MINI, timed_s=1.5)
    asked = [probe | {"when": "ends"} for probe in probes]
    meter = {"hz": 20, "probes": probes}
    (run,) = measure(device, stage, preset=preset, cores=[first], probes=asked, meter=meter)
    assert events.last(run, "facts")["affinity"] == [first]  # the model's own
    seen = events.last(run, "sensor")["values"]
    assert set(filter(None, seen["program"])) == {str(mine[1:])}
    assert {listed.partition("-")[0] for listed in seen["meter"] if listed} == {str(mine[1])}
    for tel in events.of_kind(run, "tel"):
        assert tel["probes"].get("program", str(mine[1:])) == str(mine[1:])
    start, end = events.telemetry(run, "start"), events.telemetry(run, "end")
    assert end["helpers_s"] > start["helpers_s"]  # the process of the meter, and its programs


def test_programs_are_probed_at_the_ends_and_cheap_files_between_samples_too(
    device, stage, tmp_path
):
    (tmp_path / "temp").write_text("45000")
    asked = [
        {"name": "mode", "argv": [sys.executable, "-c", "print('15W')"], "when": "ends"},
        {"name": "temp", "file": str(tmp_path / "temp"), "when": "second"},
    ]
    (run,) = measure(device, stage, probes=asked)
    seen = {tel["phase"]: tel["probes"] for tel in events.of_kind(run, "tel")}
    whole = {"mode": "15W", "temp": "45000"}
    assert seen["before"] == seen["end"] == seen["after"] == whole
    # nothing runs between warm-up and the first sample: the clocks would fall
    assert seen["start"] == {"temp": "45000"}


def test_a_rate_is_held_and_the_samples_are_those_of_the_model_alone(device, stage):
    (run,) = measure(device, stage, fps=100.0)
    samples, timed = events.samples_ms(run), events.last(run, "timed")
    assert len(samples["infer"]) == timed["n"] == MINI.timed_runs
    # sleeps end late, never early
    assert all(at >= 0.01 * i - 1e-5 for i, at in enumerate(samples["at_s"]))
    assert 0 <= timed["late"] < timed["n"]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_layers_are_told_by_a_process_of_their_own(device, stage, runtime, tiny_onnx, tmp_path):
    if runtime == "openvino":
        openvino = pytest.importorskip("openvino", reason="profiles the tiny model as IR")
        path, weights = tiny_onnx
        openvino.save_model(openvino.convert_model(path), tmp_path / "model.xml", False)
        sources = [tmp_path / "model.xml", tmp_path / "model.bin"]
        stage = write_stage(tmp_path / "ir", sources, "openvino", *images_and_logits(weights))
    provider = {"onnxruntime": "CPUExecutionProvider", "openvino": "CPU"}[runtime]
    precision = {"onnxruntime": None, "openvino": "f32"}[runtime]
    (run,) = measure(
        device, stage, profile=True, runtime=runtime, provider=provider, precision=precision
    )
    (layers,) = events.of_kind(run, "layers")
    operators = {row["op"] for row in layers["rows"]}
    assert operators & {"Conv", "Convolution"}
    assert layers["runs"] >= 5
    assert sum(row["share"] for row in layers["rows"]) == pytest.approx(1)
    assert all(row["p50"] >= 0 for row in layers["rows"])
    assert len(list(events.of_kind(run, "lat"))) >= 1  # of the process that was not profiled


def test_litert_says_in_words_that_it_times_no_layers():
    module = pytest.importorskip("ai_edge_litert.interpreter", reason="looked into here")
    assert "whole inferences only" in LiteRt.layers(object.__new__(LiteRt))
    # the day it has a profiler, this reason is no longer true
    named = {name for name in dir(module.Interpreter) if "profil" in name.lower()}
    assert named == set()
