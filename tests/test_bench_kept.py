"""Which finished bench may stand for one that is asked for again: the same, and a sound one."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgessl.core import files
from edgessl.core.artifact import Artifact, InputSpec
from edgessl.core.errors import UsageProblem
from edgessl.core.measurement import BenchResult
from edgessl.core.recipe import Bench
from edgessl.devices.agent_file import agent_sha256
from edgessl.devices.base import Traits
from edgessl.devices.boards import resolve
from edgessl.devices.choice import Asked, asked_values
from edgessl.devices.protocol import PRESETS
from edgessl.stages.bench_kept import kept_bench
from edgessl.stages.board_opening import asked_of

ASKED = Asked(PRESETS["quick"])
ARTIFACT = Artifact(
    artifact_kind="export", format="onnx", files={"model.onnx": "0"}, seal="5" * 64,
    input=InputSpec.square(32),
)  # fmt: skip


class Device:
    kind, traits = "ssh", Traits()

    def __init__(self, version="1.32.0"):
        self.version = version

    def facts(self):
        return {"runtimes": {"onnxruntime": self.version}}


def write(place: Path, stamp: str, *, asked=ASKED, verdicts=("VALID",), **changes):
    body = {
        "run": {"agent_sha256": agent_sha256()}, "model": {"seal": ARTIFACT.seal},
        "data": {"data_sha256": "d"}, "device": {"kind": "ssh"},
        "runtime": {"version": "onnxruntime 1.32.0", "asked": {"provider": "CPUExecutionProvider"}},
        "protocol": {"preset": {"name": "quick"}, "asked": asked_values(asked)},
        "latency_ms": {}, "verdicts": list(verdicts),
    } | changes  # fmt: skip
    BenchResult.model_validate(body)
    files.write_json(place / f"net-onnxruntime-1t-{stamp}" / "result.json", "bench-result", body)


def kept(place, *, asked=ASKED, device=None, data="d", allow=False, artifact=ARTIFACT):
    stem = "net-onnxruntime-1t-"
    found = kept_bench(place, stem, artifact, device or Device(), asked, data, allow)
    return found and found[1].name.removeprefix(stem)


def test_the_newest_sound_bench_of_the_same_question_stands(tmp_path):
    assert kept(tmp_path) is None
    write(tmp_path, "1")
    write(tmp_path, "2")
    write(tmp_path, "3", verdicts=("BUSY",))
    assert kept(tmp_path) == "2"
    assert kept(tmp_path, allow=True) == "3"  # the user accepts such figures
    write(tmp_path, "4", verdicts=("EMULATED",))
    assert kept(tmp_path) == "4"
    write(tmp_path, "5", verdicts=("WRONG_ANSWERS",))
    assert kept(tmp_path, allow=True) == "4"
    (tmp_path / "net-onnxruntime-1t-6").mkdir()
    (tmp_path / "net-onnxruntime-1t-6" / "result.json").write_text("{")
    assert kept(tmp_path) == "4"


@pytest.mark.parametrize(
    "changes",
    [
        {"asked": replace(ASKED, threads=2)},
        {"asked": replace(ASKED, provider="CUDAExecutionProvider")},
        {"asked": replace(ASKED, fps=5.0)},
        {"asked": replace(ASKED, cores=(1,))},
        {"asked": replace(ASKED, energy=True, battery_wh=20.0)},
        {"asked": replace(ASKED, preset=PRESETS["standard"])},
        {"asked": replace(ASKED, power_csv=Path("meter.csv"))},
        {"device": Device("1.33.0")},
        {"data": "other images"},
        {"artifact": ARTIFACT.model_copy(update={"seal": "6" * 64})},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_question_is_asked_again(tmp_path, changes):
    write(tmp_path, "1")
    assert kept(tmp_path, **changes) is None


def test_another_agent_measures_again(tmp_path):
    write(tmp_path, "1", run={"agent_sha256": "of yesterday"})
    assert kept(tmp_path) is None


def test_this_machine_has_no_address(monkeypatch, tmp_path):
    """An address that is ignored would give this machine's figures the board's name."""
    monkeypatch.setenv("EDGESSL_BOARDS", str(tmp_path / "boards.toml"))
    with pytest.raises(UsageProblem, match="'local' is this machine and has no address"):
        resolve("local", "ssh://pi@board")
    assert resolve("ssh", "ssh://pi@board").address == "ssh://pi@board"


def test_every_option_of_a_bench_reaches_the_measurement():
    section = Bench(
        runtime="litert", provider="XNNPACK", threads=3, cores=(0, 1), fixed_performance=True,
        fps=4.0, battery_wh=10.0, power_csv="m.csv", power_scope="usb", profile_layers=True,
    )  # fmt: skip
    asked = asked_of(section)
    assert asked == Asked(
        PRESETS["quick"], "litert", "XNNPACK", 3, (0, 1), True, 4.0, True, 10.0, Path("m.csv"),
        "usb", True,
    )  # fmt: skip
    assert not asked_of(Bench()).energy
    with pytest.raises(UsageProblem, match="cannot take its 130 samples within 600 s"):
        asked_of(Bench(fps=0.1))
