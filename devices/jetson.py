"""NVIDIA Jetson: rails, power mode, clocks of the GPU, alarms; a silent fallback to the CPU."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgessl.devices import events, fan, ina3221, l4t, plain, probed, tegrastats
from edgessl.devices.base import Board, Meter, Probe, Traits
from edgessl.devices.conditions import LOCK_HELD
from edgessl.devices.events import Run
from edgessl.devices.linux import LinuxDevice

if TYPE_CHECKING:
    from edgessl.devices.protocol import Finding

DEVFREQ = "/sys/class/devfreq/*/"
COOLING = "/sys/class/thermal/cooling_device*/"
HWMON = "/sys/class/hwmon/hwmon*/"
QUERY = "dpkg-query -W -f '${Package}\\t${Version}\\n' nvidia-jetpack 'cuda-cudart-*' "
QUERY += "'libcudnn*' 'libnvinfer*' 2>/dev/null; true"
PROBES = (
    Probe("release", file="/etc/nv_tegra_release"),
    # full paths: a login over SSH that runs one command often has no /usr/sbin
    Probe("power_mode", ("/usr/sbin/nvpmodel", "-q")),
    Probe("packages", ("sh", "-c", QUERY)),
    # root only; asked without a password, and left out where that is refused
    Probe("clocks", ("sudo", "-n", "/usr/bin/jetson_clocks", "--show")),
    # it never ends by itself
    Probe(
        "tegrastats",
        ("sh", "-c", "timeout 5 tegrastats --interval 500 2>/dev/null | head -n 2"),
    ),
    Probe("gpu_now", file=DEVFREQ + "cur_freq", when="second"),
    Probe("gpu_min", file=DEVFREQ + "min_freq"),
    Probe("gpu_max", file=DEVFREQ + "max_freq"),
    Probe("gpu_governor", file=DEVFREQ + "governor"),
    Probe("gpu_load", file=DEVFREQ + "device/load", when="second"),
    Probe("cooling_type", file=COOLING + "type"),
    Probe("cooling_state", file=COOLING + "cur_state", when="second"),
    Probe("rail_critical", file=HWMON + "curr[1-3]_crit_alarm"),
    Probe("rail_warning", file=HWMON + "curr[1-3]_max_alarm"),
    Probe("rail_label", file=HWMON + "in[1-3]_label"),
    Probe("events", file=HWMON + "oc*_event_cnt"),
    *fan.PROBES,
)
IS_JETSON = re.compile(
    r"jetson|\bnvidia\b.*\b(?:orin|xavier|thor|nano|tx[12])\b|^quill$", re.IGNORECASE
)
IS_GPU = re.compile(r"g[a-z]?\d+b$|gpu$|gpu-gpc-\d+$")  # 17000000.gpu, .ga10b, .gv11b, gpu-gpc-0
# hardware events of Orin and Thor, in NVIDIA's order
OVER_CURRENT = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "over-current peaks"}
GPU_PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "TensorRT")
RUNTIMES = {
    "onnx": (
        "tensorrt",
        "onnxruntime:TensorrtExecutionProvider",
        "onnxruntime:CUDAExecutionProvider",
        "onnxruntime",
    )
}
# where a package with CUDA comes from, by major version of JetPack
WHEELS = {
    4: "JetPack 4 has Python 3.6, which is too old here: time the file with trtexec",
    5: "onnxruntime-gpu for Python 3.8 from NVIDIA's Jetson Zoo",
    6: "onnxruntime-gpu for Python 3.10 from the Jetson AI Lab index (jp6)",
    7: "onnxruntime-gpu from PyPI (1.29 or newer has aarch64 wheels with CUDA)",
}
METER_HZ = 12.0  # a little above the floor of 10: each reading is a dozen files


def open_board(board: Board) -> LinuxDevice:
    """Return a Jetson at an address, or this machine when there is none."""
    from edgessl.devices.address import open_shell

    return LinuxDevice(board, open_shell(board), TRAITS)


def mismatch(facts: Mapping[str, Any]) -> str:
    """Return why this is no Jetson; empty when it is one."""
    model = plain.shown(str(facts.get("board") or ""))
    if IS_JETSON.search(model):
        return ""
    return f"the board calls itself '{model or 'nothing'}', which is no Jetson"


def meter(_facts: Mapping[str, Any]) -> Meter:
    """Return the rails of the module: without the carrier board, its fan and devices on it."""
    return Meter(
        "module",
        "INA3221 on the module: the input rail, or the sum of the rails on AGX boards; without "
        "the carrier board",
        ina3221.PROBES,
        METER_HZ,
        ina3221.total_watts,
    )


def no_meter(_facts: Mapping[str, Any]) -> str:
    """Return why a Jetson may have no meter."""
    return "the INA3221 power sensors cannot be read"


def conditions(runs: Sequence[Run]) -> Iterable[str]:
    """Yield release, power mode, clocks of the GPU, alarms and fan."""
    if not runs:
        return
    yield from _identity(runs[0])
    for run in runs:
        yield from _gpu_clocks(run)
        yield from _alarms(run)
    if any(_off_the_gpu(loaded) for loaded in events.all_of(runs, "loaded")):
        yield "the GPU was not used"
    yield from fan.conditions(runs)


def findings(runs: Sequence[Run]) -> Iterable[Finding]:
    """Yield a fallback to the CPU that nobody asked for, and what to install against it."""
    for run in runs:
        asked = events.last(run, "asked").get("provider")
        if asked in GPU_PROVIDERS and _off_the_gpu(events.last(run, "loaded")):
            release = l4t.release(probed.last(run, "release"))
            wheel = WHEELS.get(
                (release and release.jetpack) or 0, "onnxruntime-gpu for its JetPack"
            )
            yield (
                "WRONG_BACKEND",
                f"ONNX Runtime fell back to the processor without a word; on this board it needs "
                f"{wheel}, in place of the package 'onnxruntime'",
            )


def _off_the_gpu(loaded: events.Event) -> bool:
    """Whether nothing ran on the GPU, by the nodes where they were counted."""
    nodes = (loaded.get("placement") or {}).get("nodes", {})
    ran = [name for name, n in nodes.items() if n] or (loaded.get("providers") or [])[:1]
    return bool(ran) and not set(ran) & set(GPU_PROVIDERS)


def _identity(run: Run) -> Iterable[str]:
    if release := l4t.release(probed.last(run, "release")):
        jetpack = "" if release.jetpack is None else f" (JetPack {release.jetpack})"
        yield f"Linux for Tegra {release.version}{jetpack}"
    if versions := l4t.versions(probed.last(run, "packages")):
        yield "installed: " + ", ".join(f"{name} {v}" for name, v in versions.items())
    said = probed.last(run, "power_mode")
    mode = l4t.power_mode(said)
    yield f"power mode: {mode}" if mode else "not observable here: power mode (nvpmodel -q)"
    if name := l4t.fan_mode(said):
        yield f"fan mode: {name}"
    lines = [tegrastats.parse(text) for text in probed.last(run, "tegrastats").splitlines()]
    cores = lines[-1].cores if lines else []
    if off := cores.count(None):
        yield f"{off} of {len(cores)} cores are switched off"
    memory = re.search(r"^EMC .*FreqOverride=(\d)", probed.last(run, "clocks"), re.MULTILINE)
    if memory is None:
        yield "not observable here: whether the memory clock is locked (jetson_clocks needs root)"
    else:
        yield f"memory clock {'locked' if memory[1] == '1' else 'not locked'} (jetson_clocks)"


def _gpu_clocks(run: Run) -> Iterable[str]:
    low, high = (_of_gpu(probed.last(run, name)) for name in ("gpu_min", "gpu_max"))
    governors = probed.files(probed.last(run, "gpu_governor"))
    readings = [_of_gpu(text) for _, text in probed.series(run, "gpu_now")]
    for folder, top in high.items():
        name = folder.rsplit("/", 1)[-1]
        seen = [reading[folder] for reading in readings if folder in reading]
        span = f"{min(seen):.0f} to {max(seen):.0f} of at most" if seen else "at most"
        governor = plain.shown(governors.get(f"{folder}/governor", ""), 30)
        locked = low.get(folder) == top
        state = "locked" if locked else governor or "not locked"
        yield f"clock {plain.shown(name, 30)}: {span} {top:.0f} MHz ({state})"
        if locked and seen and min(seen) < LOCK_HELD * top:
            yield f"the locked clock of {plain.shown(name, 30)} did not hold: {min(seen):.0f} MHz"


def _of_gpu(text: str) -> dict[str, float]:
    """Return megahertz by folder of those devices with a clock that are a GPU."""
    return {
        probed.folder(path): hertz / 1e6
        for path, hertz in probed.numbers(text).items()
        if IS_GPU.search(probed.folder(path)) and 0 < hertz < 1e11
    }


def _alarms(run: Run) -> Iterable[str]:
    types = probed.files(probed.last(run, "cooling_type"))
    hot: dict[str, None] = {}
    for _, text in probed.series(run, "cooling_state"):
        for path, state in probed.numbers(text).items():
            kind = types.get(f"{probed.folder(path)}/type", "")
            if kind.endswith("-alert") and state > 0:
                hot[plain.shown(kind, 40)] = None
    if hot:
        yield f"throttled by heat: {', '.join(hot)}"
    before, after = (probed.numbers(read(run, "events")) for read in (probed.first, probed.last))
    for path, count in sorted(after.items()):
        grown = count - before.get(path, count)
        kind = re.match(r"oc\d", path.rsplit("/", 1)[-1])
        if grown > 0 and kind:
            named = OVER_CURRENT.get(kind[0], kind[0])
            yield f"slowed down by the supply while it ran: {named}, {grown:.0f} times"
    labels = probed.files(probed.last(run, "rail_label"))
    for name, word in (("rail_critical", "critical"), ("rail_warning", "warning")):
        for path, alarm in probed.numbers(probed.last(run, name)).items():
            channel = path.rsplit("/curr", 1)[-1].partition("_")[0]
            rail = labels.get(f"{probed.folder(path)}/in{channel}_label", "a rail")
            if alarm:
                yield f"{word} current on {plain.shown(rail, 40)} while it ran"


TRAITS = Traits(
    probes=PROBES,
    meter=meter,
    no_meter=no_meter,
    conditions=conditions,
    findings=findings,
    runtimes=RUNTIMES,
    mismatch=mismatch,
)
