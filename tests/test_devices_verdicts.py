"""Which traces are what they claim to be: steady boards under their default governors are, each
disturbance is not.

The traces are made, after what such boards are known to do; the disturbances at the end are real.
"""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from tiny_bench import MINI, bench, images_and_logits, write_onnx, write_stage

from edgessl.devices import DEVICES, jetson
from edgessl.devices.base import Board, Traits
from edgessl.devices.conditions import sustained
from edgessl.devices.protocol import PRESETS, drift, judge

CPU, CUDA, TRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
QUICK, SUSTAINED = PRESETS["quick"], PRESETS["sustained"]
SEEDS = range(60)


@dataclasses.dataclass
class Trace:
    """A board: cores, threads of the model, governor and what others take of one core."""

    name: str
    infer_ms: object  # (rng, seconds since start) -> milliseconds
    cores: int = 4
    threads: int = 1
    governor: str = "ondemand"
    clocks: tuple = (600, 1500)
    others: float = 0.01  # cores
    waits: float = 0.002  # of each thread's time
    probes: dict = dataclasses.field(default_factory=dict)

    def run(self, seed, seconds=10.0, least=130):
        rng = np.random.default_rng(seed)
        infer, at_s, now = [], [], 0.0
        while now < seconds or len(infer) < least:
            infer.append(max(0.01, self.infer_ms(rng, now)))
            at_s.append(now)
            now += infer[-1] * 1.15 / 1000  # pixels and answer take some of it, too
        ns = [int(v * 1e6) for v in infer]
        policy = {"governor": self.governor, "min_mhz": self.clocks[0], "max_mhz": 1800}
        own = now * min(self.threads, self.cores) * 0.98
        begin = {"busy_s": 100.0, "own_s": 3.0, "wait_s": 0.1, "swap_pages": 7}
        end = {
            "busy_s": 100.0 + own + self.others * now, "own_s": 3.0 + own,
            "wait_s": 0.1 + self.waits * now * self.threads, "swap_pages": 7,
        }  # fmt: skip

        def tel(phase, t, counters):
            mhz = int(rng.choice(self.clocks))
            return {
                "k": "tel", "t": t, "phase": phase, "temp_c": {"cpu0": 55.0 + t / 60},
                "freq_mhz": {"policy0": mhz}, "probes": self.probes, "load1": 1.0, "rss_mb": 60,
            } | counters  # fmt: skip

        golden = {"max_abs": 1e-6, "cosine": 1.0, "agreement": 1.0}
        return [
            {"k": "facts", "t": 0, "cores": self.cores, "policies": {"policy0": policy},
             "affinity": list(range(self.cores)), "not_observable": []},
            tel("before", 0.5, begin),
            {"k": "loaded", "t": 1, "providers": ["CPU"], "precision": None,
             "threads": self.threads, "load_ms": 9.0},
            {"k": "golden", "t": 1, "n": 16, "tolerance": 1e-3, "ok": True,
             "expected": golden, "reference": golden},
            tel("start", 2.0, begin),
            *(tel("during", 3.0 + t, begin) for t in range(min(9, int(now)))),
            {"k": "lat", "t": 3, "first": 0, "at_us": [int(t * 1e6) for t in at_s],
             "ns": {"infer": ns, "e2e_from_uint8": [int(n * 1.15) for n in ns]}},
            tel("end", 2.0 + now, end),
            {"k": "timed", "t": 9, "n": len(ns), "s": now, "inputs": 64, "late": 0},
            {"k": "done", "t": 9, "max_rss_mb": 60.0},
        ]  # fmt: skip


def judged(*runs, preset=QUICK, traits=None):
    return judge(runs, preset, provider="CPU", traits=traits)


# --------------------------------------------------------------------------- steady boards


def noisy(median, spread):
    return lambda rng, _t: median * np.exp(rng.normal(0, spread))


def with_tail(rng, _t):
    """A steady middle, and one sample of thirty that is two to nine times as long."""
    value = 24 * np.exp(rng.normal(0, 0.02))
    return value * rng.uniform(2, 9) if rng.random() < 1 / 30 else value


def two_levels(rng, _t):
    """The governor of a GPU goes up and down between two inferences, three up to one down."""
    return (4.0 if rng.random() < 0.75 else 6.5) * np.exp(rng.normal(0, 0.03))


def ondemand(rng, t):
    """For a tenth of a second in three, the clock is down by a third."""
    return (33 if t % 3 < 0.1 else 24) * np.exp(rng.normal(0, 0.015))


def core_to_core(rng, t):
    """The scheduler moves a thread from a fast core to a slow one for half a second in four."""
    return (21 if t % 4 < 0.5 else 9) * np.exp(rng.normal(0, 0.02))


STEADY = [
    Trace("Pi 4, ondemand, clocks moving", ondemand),
    Trace("Pi 5, schedutil, four threads", noisy(6, 0.03), threads=4, governor="schedutil"),
    Trace("Pi Zero 2, daemons take 3 % of a core", noisy(85, 0.02), others=0.03, waits=0.01),
    # one core: what others take of it, the model waits for
    Trace(
        "Pi Zero, one core, daemons take 3 %", noisy(240, 0.02), cores=1, others=0.03, waits=0.03
    ),
    Trace("Pi 4, a slow net with 10 % of spread", noisy(80, 0.10)),
    Trace("Pi 4, a noisy tail", with_tail),
    Trace("Jetson Orin Nano, 15 W, GPU clock moving", two_levels, cores=6, others=0.15),
    Trace("Jetson Nano, 5 W, two cores off", noisy(12, 0.04), cores=2, governor="schedutil"),
    Trace("a phone's big and little cores", core_to_core, cores=8, others=0.25),
    # the model's own threads wait for each other; nobody else is there
    Trace("four threads on two cores", noisy(9, 0.05), cores=2, threads=4, waits=0.5),
]


@pytest.mark.parametrize("board", STEADY, ids=lambda board: board.name)
def test_a_steady_board_under_its_default_governor_is_valid(board):
    verdicts = [judged(board.run(seed)).verdicts for seed in SEEDS]
    assert verdicts.count(("VALID",)) == len(SEEDS)
    lines = judged(board.run(0)).conditions
    assert f"governor: {board.governor}" in lines
    assert not any("locked" in line for line in lines)


def test_more_threads_than_cores_are_told():
    lines = judged(STEADY[-1].run(0)).conditions
    assert "4 threads on 2 cores: they wait for each other" in lines


def test_three_repeats_of_a_steady_board_are_valid():
    standard = dataclasses.replace(PRESETS["standard"], timed_s=10.0)
    runs = [STEADY[1].run(seed, least=1024) for seed in range(3)]
    assert judged(*runs, preset=standard).verdicts == ("VALID",)


def throttling(rng, t):
    """A Pi 5 without a fan: 2.4 GHz for 100 s, then the clock goes up and down around 85 C."""
    clock = 2.4 if t < 100 else 1.5 + 0.3 * (t % 7 < 3)
    return 6 * 2.4 / clock * np.exp(rng.normal(0, 0.02))


def test_a_long_run_that_throttled_and_settled_is_valid_and_says_when_and_by_how_much():
    board = Trace("Pi 5", throttling, clocks=(1500, 2400), governor="ondemand")
    run = board.run(0, seconds=600)
    result = judged(run, preset=SUSTAINED)
    assert result.verdicts == ("VALID",)
    ends = sustained(run, SUSTAINED.bin_s)
    assert ends.first_ms == pytest.approx(6, rel=0.02)
    assert 8.0 < ends.last_ms < 9.7
    assert ends.since_s == 100
    (line,) = (line for line in result.conditions if line.startswith("sustained"))
    assert "ms in the first minute" in line
    assert "slowed down, since 100 s" in line
    # the same board in a run that ends before it has settled
    short = dataclasses.replace(SUSTAINED, timed_s=130.0)
    assert judged(board.run(0, seconds=130), preset=short).verdicts == ("UNSTABLE",)


def test_a_long_run_without_heat_says_so():
    result = judged(STEADY[1].run(0, seconds=600), preset=SUSTAINED)
    assert result.verdicts == ("VALID",)
    assert any(line.endswith("no slowdown") for line in result.conditions)


def test_a_locked_clock_is_told_and_told_when_it_does_not_hold():
    held = Trace("locked", noisy(6, 0.02), clocks=(1800, 1790), governor="performance")
    lost = dataclasses.replace(held, clocks=(1800, 1200))
    assert "clock policy0 is locked to 1800 MHz" in judged(held.run(0)).conditions
    result = judged(lost.run(0))
    assert "clock policy0 is locked to 1800 MHz, which did not hold: 1200 MHz" in result.conditions
    assert result.verdicts == ("VALID",)  # a condition: the figure is what was taken


def test_verdicts_and_conditions_of_a_kind_of_board_are_heard():
    asked = []

    def findings(runs):
        asked.extend(event["provider"] for run in runs for event in run if event["k"] == "asked")
        return [("WRONG_BACKEND", "the board says so")]

    traits = Traits(conditions=lambda _runs: ["fan: off", "fan: off"], findings=findings)
    result = judged(STEADY[0].run(0), traits=traits)
    assert asked == ["CPU"]
    assert result.verdicts == ("WRONG_BACKEND",)
    assert result.conditions.count("fan: off") == 1


# ---------------------------------------------------------------------------- disturbances


def drifting(share):
    return lambda rng, t: 24 * (1 + share * t / 10) * np.exp(rng.normal(0, 0.02))


def steps_up(rng, t):
    return (30 if t > 6 else 24) * np.exp(rng.normal(0, 0.02))


def changed(run, kind, phase=None, **fields):
    return [
        event | fields if event["k"] == kind and event.get("phase") == phase else event
        for event in run
    ]


BOARD = STEADY[0]
SLOWLY = Trace("drift", drifting(0.12))
ONE_CORE = Trace("one core", noisy(240, 0.02), cores=1, others=0.08, waits=0.08)


@pytest.mark.parametrize(
    ("make", "verdict"),
    [
        (lambda seed: SLOWLY.run(seed), "UNSTABLE"),
        (lambda seed: Trace("warming up", drifting(-0.12)).run(seed), "UNSTABLE"),
        (lambda seed: Trace("a step", steps_up).run(seed), "UNSTABLE"),
        (lambda seed: Trace("hog", ondemand, others=1.0).run(seed), "BUSY"),
        (lambda seed: Trace("half a core", ondemand, others=0.5, waits=0.1).run(seed), "BUSY"),
        (lambda seed: ONE_CORE.run(seed), "BUSY"),
        (lambda seed: BOARD.run(seed, seconds=4), "TOO_SHORT"),
        (lambda seed: Trace("slow", noisy(240, 0.02)).run(seed, least=60), "TOO_SHORT"),
        (lambda seed: changed(BOARD.run(seed), "tel", "end", swap_pages=900), "BUSY"),
        (lambda seed: changed(BOARD.run(seed), "loaded", providers=["GPU"]), "WRONG_BACKEND"),
        (lambda seed: changed(BOARD.run(seed), "golden", ok=False), "WRONG_ANSWERS"),
        (lambda seed: changed(BOARD.run(seed), "facts", emulated=True), "EMULATED"),
    ],
)
def test_a_disturbed_board_is_not_valid(make, verdict):
    for seed in range(20):
        result = judged(make(seed))
        assert result.verdicts[0] == verdict
        assert result.reasons


def test_repeats_that_differ_are_unstable_though_each_is_steady():
    standard = dataclasses.replace(PRESETS["standard"], timed_s=10.0)
    runs = [Trace("r", noisy(m, 0.02)).run(0, least=1024) for m in (6.0, 6.1, 6.5)]
    result = judged(*runs, preset=standard)
    assert result.verdicts == ("UNSTABLE",)
    assert "3 repeats spread by 8" in result.reasons[0]


def test_drift_is_told_from_noise_by_the_intervals_of_the_medians():
    rng = np.random.default_rng(0)
    noise = [np.exp(rng.normal(0, 0.1, 130)) for _ in range(300)]
    # more than 5 % apart by chance alone, as often as once in ten
    apart = [abs(np.median(v[-32:]) / np.median(v[:32]) - 1) > 0.05 for v in noise]
    assert np.mean(apart) > 0.05
    assert np.mean([drift(list(v)) is not None for v in noise]) < 0.01
    moved = [v * np.where(np.arange(130) < 65, 1, 1.2) for v in noise]
    assert np.mean([drift(list(v)) is not None for v in moved]) > 0.98
    assert drift([1.0] * 4) is None


def test_a_page_or_two_is_told_and_no_verdict():
    run = changed(BOARD.run(0), "tel", "end", swap_pages=9)
    calm = changed(run, "tel", "end", busy_s=111.0, own_s=13.0, wait_s=0.1)
    result = judged(calm)
    assert result.verdicts == ("VALID",)
    assert any("pages a second were swapped" in line for line in result.conditions)


# ------------------------------------------------------------------ what ran, and where


def placed(provider, nodes, on_cpu=()):
    """A steady run whose nodes were counted; the runtime names the provider first, as asked."""
    placement = {"nodes": nodes, "on_cpu": list(on_cpu)}
    run = changed(BOARD.run(0), "loaded", providers=[provider, CPU], placement=placement)
    return judge([run], QUICK, provider=provider, traits=jetson.TRAITS)


def test_a_provider_that_took_no_node_did_not_run_whatever_the_session_says():
    result = placed(TRT, {CUDA: 50})
    assert result.verdicts == ("WRONG_BACKEND",)
    assert result.reasons == (f"WRONG_BACKEND: no node ran on {TRT}: 50 on {CUDA}",)
    assert "the GPU was not used" not in result.conditions
    result = placed(TRT, {CPU: 52}, on_cpu=["conv"])
    assert result.reasons[0].startswith(f"WRONG_BACKEND: no node ran on {TRT}: 52 on {CPU}")
    assert "onnxruntime-gpu" in result.reasons[1]  # what to install against it
    assert "the GPU was not used" in result.conditions


def test_nodes_on_another_accelerator_are_told_and_nodes_on_the_cpu_are_a_fallback():
    result = placed(TRT, {TRT: 1, CUDA: 3})
    assert result.verdicts == ("VALID",)
    assert f"3 of 4 nodes ran on {CUDA}, not on {TRT}" in result.conditions
    result = placed(TRT, {TRT: 1, CPU: 1}, on_cpu=["softmax"])
    assert result.reasons == ("WRONG_BACKEND: 1 of 2 nodes fell back to the CPU: softmax",)
    assert placed(TRT, {TRT: 2}).verdicts == ("VALID",)


def test_a_backend_that_cannot_be_seen_is_said_to_be_unseen():
    result = judged(changed(BOARD.run(0), "loaded", providers=None))
    assert result.verdicts == ("VALID",)
    assert "not observable here: which backend ran" in result.conditions
    assert not any("backend" in line for line in judged(BOARD.run(0)).conditions)


# ------------------------------------------------------------------- disturbances that are real


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pytest.importorskip("onnx", reason="the tiny model is built with onnx")
    pytest.importorskip("onnxruntime", reason="runs the tiny model")
    return write_onnx(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def device():
    device = DEVICES.load("local")(Board("local"))
    yield device
    device.close()


@pytest.fixture
def hogs():
    """Two programs for each core that do nothing but use it."""
    import os

    made = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(2 * (os.cpu_count() or 1))
    ]
    yield
    for hog in made:
        hog.kill()
        hog.wait()


@pytest.mark.slow
def test_a_cpu_hog_beside_a_bench_is_busy(device, tiny, tmp_path, hogs):
    stage = write_stage(tmp_path / "stage", [tiny[0]], "onnx", *images_and_logits(tiny[1]))
    preset = dataclasses.replace(MINI, timed_s=1.0)
    result = bench(device, stage, tmp_path / "out", preset=preset)
    assert "BUSY" in result.verdicts
    assert any(reason.startswith("BUSY: other work used") for reason in result.reasons)


def test_wrong_preprocessing_gives_wrong_answers_and_no_time(device, tiny, tmp_path):
    from tiny_bench import SPEC

    other = SPEC.model_copy(update={"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})
    stage = write_stage(
        tmp_path / "stage", [tiny[0]], "onnx", *images_and_logits(tiny[1]), spec=other
    )
    result = bench(device, stage, tmp_path / "out")
    assert result.verdicts == ("WRONG_ANSWERS",)
    assert result.latency_ms == {}


def test_a_provider_that_is_not_there_is_the_wrong_backend(device, tiny, tmp_path):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has the provider that must be absent")
    stage = write_stage(tmp_path / "stage", [tiny[0]], "onnx", *images_and_logits(tiny[1]))
    result = bench(device, stage, tmp_path / "out", provider="CUDAExecutionProvider")
    assert result.verdict == "WRONG_BACKEND"
