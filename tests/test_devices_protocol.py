"""Verdicts and conditions on hand-made event lists; nothing here takes a time."""

import pytest

from edgessl.core.errors import UsageProblem
from edgessl.core.measurement import Latency
from edgessl.devices import events
from edgessl.devices.protocol import PRESETS, Preset, expected_seconds, judge, preset_named

MINI = Preset("mini", 1, 0.0, 130, 10.0, ("p50", "p90"))
COUNTERS = {"load1": 0.1, "own_s": 0.0, "busy_s": 0.0, "wait_s": 0.0, "swap_pages": 7, "rss_mb": 50}


def tel(phase, t, **changed):
    return {"k": "tel", "phase": phase, "t": t, "temp_c": {}, "freq_mhz": {}} | COUNTERS | changed


def golden(ok=True, error=1e-6):
    figures = {"max_abs": error, "cosine": 1.0, "agreement": 1.0}
    return {
        "k": "golden", "t": 1, "n": 16, "tolerance": 1e-3, "ok": ok,
        "expected": figures, "reference": figures,
    }  # fmt: skip


def process(infer_ms=(4.0,) * 200, *, seconds=10.0, providers=("CPU",), precision="f32", **end):
    """Events of a healthy process on a quiet 4-core board; keyword arguments break it."""
    ns = [int(v * 1e6) for v in infer_ms]
    step = seconds * 1e6 / len(ns)
    return [
        {"k": "facts", "t": 0, "cores": 4, "policies": {}, "not_observable": []},
        tel("before", 0.5, temp_c={"cpu0": 40.0}),
        {"k": "loaded", "t": 1, "providers": list(providers), "precision": precision,
         "threads": 2, "load_ms": 12.0},
        golden(),
        tel("start", 2.0),
        {"k": "lat", "t": 9, "first": 0, "at_us": [int(i * step) for i in range(len(ns))],
         "ns": {"infer": ns, "e2e_from_uint8": [2 * n for n in ns]}},
        tel("end", 2.0 + seconds, **{"own_s": seconds, "busy_s": seconds} | end),
        {"k": "timed", "t": 12, "n": len(ns), "s": seconds, "inputs": 64},
        {"k": "done", "t": 12, "max_rss_mb": 60.0},
    ]  # fmt: skip


def judged(*runs, preset=MINI):
    return judge(runs, preset, provider="CPU", precision="f32")


def test_a_quiet_steady_run_is_valid_without_reasons():
    result = judged(process())
    assert result.verdicts == ("VALID",)
    assert result.reasons == ()


@pytest.mark.parametrize(
    ("broken", "verdict", "said"),
    [
        (process(providers=["GPU"]), "WRONG_BACKEND", "ran on GPU"),
        (process(precision="bf16"), "WRONG_BACKEND", "ran in bf16"),
        (process([4.0] * 129), "TOO_SHORT", "129 samples"),
        (process(seconds=9.9), "TOO_SHORT", "9.9 s"),
        (process([4.0] * 150 + [4.3] * 50), "UNSTABLE", "+7.5%"),
        (process([4.3] * 50 + [4.0] * 150), "UNSTABLE", "-7.0%"),
        # 4 cores for 10 s: others used 2.4 of 40 core seconds
        (process(busy_s=12.4), "BUSY", "6% of the cores"),
        # 2 threads for 10 s: 1.2 of 20 thread seconds were spent waiting
        (process(wait_s=1.2), "BUSY", "waited for a core 6%"),
        (process(swap_pages=18), "BUSY", "1.1 pages a second"),
    ],
)
def test_each_fault_gives_its_verdict_and_says_what_was_seen(broken, verdict, said):
    result = judged(broken)
    assert result.verdicts == (verdict,)
    assert said in " ".join(result.reasons)


def test_just_inside_every_limit_is_valid():
    inside = process([4.0] * 150 + [4.19] * 50, busy_s=11.9, wait_s=0.9)
    assert judged(inside).verdicts == ("VALID",)


def test_verdicts_come_worst_first_and_reasons_follow_them():
    result = judged(process([4.0] * 60 + [5.0] * 60, busy_s=20.0, providers=["GPU"]))
    assert result.verdicts == ("WRONG_BACKEND", "TOO_SHORT", "UNSTABLE", "BUSY")
    assert [reason.split(":")[0] for reason in result.reasons] == [
        "WRONG_BACKEND", "TOO_SHORT", "UNSTABLE", "UNSTABLE", "BUSY",
    ]  # fmt: skip


def test_wrong_answers_hide_the_missing_times():
    wrong = [e for e in process() if e["k"] not in ("golden", "lat", "timed")]
    wrong.append(golden(ok=False, error=0.5))
    result = judged(wrong)
    assert result.verdicts == ("WRONG_ANSWERS",)
    assert "5.0e-01" in result.reasons[0]


def test_an_emulated_processor_is_never_valid():
    run = [e | {"emulated": True} if e["k"] == "facts" else e for e in process()]
    assert judged(run).verdicts == ("EMULATED",)


def test_repeats_must_agree_within_five_percent_and_all_be_there():
    three = Preset("three", 1, 0.0, 130, 10.0, ("p50",), repeats=3)
    near = [process([v] * 200) for v in (4.0, 4.1, 4.19)]
    far = [process([v] * 200) for v in (4.0, 4.1, 4.21)]
    assert judged(*near, preset=three).verdicts == ("VALID",)
    assert judged(*far, preset=three).verdicts == ("UNSTABLE",)
    assert judged(*near[:2], preset=three).verdicts == ("TOO_SHORT",)


def test_a_sustained_run_that_throttled_and_settled_is_valid_and_says_so():
    preset = Preset("long", 1, 0.0, 11, 400.0, ("p50",), bin_s=10.0)
    run = process([4.0] * 200 + [6.0] * 600, seconds=400.0, busy_s=400.0, own_s=400.0)
    result = judged(run, preset=preset)
    assert result.verdicts == ("VALID",)
    assert any("+50.0%, slowed down, since 100 s" in line for line in result.conditions)


def test_a_bin_with_fewer_samples_than_a_median_needs_shows_none():
    full, scarce = (process([4.0] * n, seconds=20.0) for n in (22, 20))
    assert [b["p50"] for b in events.bin_medians(full, 10.0)] == [4.0, 4.0]
    assert [(b["n"], b["p50"]) for b in events.bin_medians(scarce, 10.0)] == [(10, None)] * 2


def test_points_far_out_are_counted_and_kept():
    values = [4.0, 4.1] * 100
    values[30] = 40.0
    run = process(values)
    assert events.outliers(events.samples_ms(run)["infer"]) == [30]
    assert len(events.samples_ms(run)["infer"]) == 200
    result = judged(run)
    assert result.verdicts == ("VALID",)
    assert any(line.startswith("1 of 200 infer samples beyond") for line in result.conditions)


def test_conditions_tell_the_state_of_the_board_and_what_cannot_be_seen():
    policy = {"governor": "schedutil", "cur_mhz": 600, "min_mhz": 600, "max_mhz": 1800}
    changed = {
        "facts": {"policies": {"policy0": policy}, "not_observable": ["power draw"],
                  "virtual_machine": "QEMU", "power_supplies": {"BAT0": "Discharging"}},
        "tel": {"freq_mhz": {"policy0": 1500}, "temp_c": {"cpu0": 61.5}},
        "timed": {"inputs": 12},
    }  # fmt: skip
    run = [e | changed.get(e["k"], {}) for e in process()]
    result = judged(run)
    assert result.verdicts == ("VALID",)
    for line in (
        "governor: schedutil",
        "clock policy0: 1500 to 1500 of at most 1800 MHz while timed",
        "temperature: 61.5 C at the start, 61.5 C at the hottest",
        "virtual machine (QEMU)",
        "power supply BAT0: Discharging",
        "12 different inputs were rotated, 64 are wanted",
        "not observable here: power draw",
    ):
        assert line in result.conditions


def test_what_the_board_cannot_show_gives_no_verdict():
    blind = {"busy_s": None, "wait_s": None, "swap_pages": None}
    run = [e | blind if e["k"] == "tel" else e for e in process(busy_s=99.0)]
    assert events.interference(run) == (None, None)
    assert judged(run).verdicts == ("VALID",)


def test_presets_are_the_published_ones_and_can_show_what_they_claim():
    quick, standard, sustained = (PRESETS[n] for n in ("quick", "standard", "sustained"))
    assert (quick.warmup_runs, quick.warmup_s, quick.timed_runs, quick.timed_s) == (10, 2, 130, 10)
    assert (standard.warmup_runs, standard.warmup_s) == (20, 5)
    assert (standard.settle_window_s, standard.settle_within, standard.warmup_cap_s) == (
        2,
        0.02,
        60,
    )
    assert (standard.timed_runs, standard.timed_s, standard.timed_cap_s) == (1024, 60, 600)
    assert (standard.repeats, standard.cooldown_within_c, standard.cooldown_cap_s) == (3, 3, 300)
    assert (sustained.timed_s, sustained.bin_s) == (600, 10)
    for preset in PRESETS.values():
        summary = Latency.of([1.0] * preset.timed_runs)
        assert all(getattr(summary, name) is not None for name in preset.shown)
    assert Latency.of([1.0] * 63).p90 is None
    assert 12 <= expected_seconds(quick) <= 20
    assert 195 <= expected_seconds(standard) <= 300


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(UsageProblem) as caught:
        preset_named("standart")
    assert "'standard'" in caught.value.hint
