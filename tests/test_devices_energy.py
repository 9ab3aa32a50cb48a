"""Energy from traces whose joules are known, and logs of meters that try to mislead."""

import csv
import math
import re

import numpy as np
import pytest

from edgessl.core.errors import FileInvalid
from edgessl.devices import power_csv
from edgessl.devices.base import Board, Fit, Meter, Probe, Traits
from edgessl.devices.energy import KEYS, energy_of
from edgessl.devices.linux import LinuxDevice
from edgessl.devices.power import Block, Trace, Window, blocks, bootstrap
from edgessl.devices.power_align import aligned
from edgessl.devices.power_csv import read_power_csv
from edgessl.devices.shell import LocalShell

IDLE_W, BUSY_W = 2.0, 5.0
BEGIN = 1000.0  # of the board's monotonic clock, when it begins to be idle
IDLE = (Window(BEGIN, BEGIN + 30), Window(BEGIN + 110, BEGIN + 140))
TIMED = Window(BEGIN + 45, BEGIN + 105)  # load and warm-up before, nothing behind


def number(texts):
    try:
        return float(texts["w"])
    except (KeyError, ValueError):
        return None


METER = Meter("module", "a test", (Probe("w", file="/sys/w"),), 20.0, number)


def ns(seconds):
    return round(seconds * 1e9)


def process(power, *, hz=20.0, n=600, windows=(TIMED, *IDLE), late=0, lost=lambda t: False):
    """Events of one process whose board drew ``power(t)`` watts."""
    timed, before, after = windows
    events = [
        {"k": "idle", "which": which, "begin_ns": ns(w.begin_s), "end_ns": ns(w.end_s)}
        for which, w in (("before", before), ("after", after))
    ]
    events.append(
        {
            "k": "timed", "n": n, "s": timed.seconds, "late": late,
            "begin_ns": ns(timed.begin_s), "end_ns": ns(timed.end_s),
        }
    )  # fmt: skip
    starts = [round(i * timed.seconds / n * 1e6) for i in range(n)]
    events.append({"k": "lat", "first": 0, "at_us": starts, "ns": {"infer": [10**6] * n}})
    # the agent reads only while idle and while timed, from the very begin of each
    for w in windows:
        at = [t for t in np.arange(w.begin_s, w.end_s, 1 / hz) if not lost(t)]
        texts = [f"{power(t):.9f}" for t in at]
        events.append({"k": "sensor", "at_ns": [ns(t) for t in at], "values": {"w": texts}})
    return events


def step(t):
    return BUSY_W if IDLE[0].end_s <= t < TIMED.end_s else IDLE_W


def net_of(result):
    return result["net_low"], result["net_j"], result["net_high"]


def check_identity(result, seconds, n):
    net = result["gross_j"] - result["idle_w"] * seconds / n
    assert result["net_j"] == pytest.approx(net, rel=1e-9)


# ---------------------------------------------------------------------------- known joules


def test_a_case_by_hand():
    # 5 W for 60 s are 300 J, 600 inferences: 0.5 J each; 2 W of idle leave 0.3 J
    result = energy_of([process(step)], METER, top1=0.8, battery_wh=10.0)
    assert set(KEYS) | {"notes"} == set(result)
    assert result["scope"] == "module"
    assert (result["idle_w"], result["busy_w"]) == pytest.approx((2, 5), abs=1e-6)
    assert (result["gross_j"], result["net_j"]) == pytest.approx((0.5, 0.3), abs=1e-6)
    assert net_of(result) == pytest.approx((0.3, 0.3, 0.3), abs=1e-6)
    assert result["j_per_correct"] == pytest.approx(0.625)
    assert result["wh_per_hour"] == pytest.approx(5)
    assert (result["n_readings"], result["hz"]) == (1200, pytest.approx(20))
    check_identity(result, 60, 600)
    # the sensor misses the carrier board: a bound, not a figure
    assert result["hours_on_battery"] is None
    assert any("at most 2.0 h" in note for note in result["notes"])
    assert any("bootstrap over blocks" in note for note in result["notes"])


def test_a_ramp_is_integrated_exactly_and_its_blocks_widen_the_interval():
    def ramp(t):
        return 4 + 2 * (t - TIMED.begin_s) / 60 if TIMED.begin_s <= t < TIMED.end_s else IDLE_W

    result = energy_of([process(ramp)], METER)
    # mean of 4 W .. 6 W, less the half sample period that is held at the end
    assert result["gross_j"] == pytest.approx(0.5, abs=1e-5)
    low, net, high = net_of(result)
    assert low < net < high
    assert 0.01 < high - low < 0.1
    check_identity(result, 60, 600)


def test_noise_idle_drift_and_three_repeats():
    rng = np.random.default_rng(3)
    runs = []
    for repeat in range(3):
        shift = 500.0 * repeat
        windows = tuple(Window(w.begin_s + shift, w.end_s + shift) for w in (TIMED, *IDLE))
        warm = 0.05 * repeat

        def power(t, shift=shift, warm=warm):
            after = 0.4 if t - shift >= IDLE[1].begin_s else 0.0
            return step(t - shift) + warm + after + rng.normal(0, 0.2)

        runs.append(process(power, windows=windows))
    result = energy_of(runs, METER)
    low, net, high = net_of(result)
    # idle 2.2 W on average (0.2 W either way), gross 5.05 W over 180 s and 1800 inferences
    assert net == pytest.approx((5.05 - 2.25) / 10, abs=0.003)
    assert low < 0.28 - 0.2 / 10 + 0.004
    assert high > 0.28 + 0.2 / 10 - 0.004
    assert any("idle before and after differ by 0.4" in note for note in result["notes"])
    check_identity(result, 180, 1800)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        # slow wander, as fans and governors make it: readings are far from independent
        wander = np.interp(np.arange(60), np.arange(0, 61, 2), rng.normal(0, 0.5, 31))
        trace = Trace.of(np.arange(60) + 0.5, 5 + wander)
        parts = list(blocks(trace, Window(0, 60), np.arange(600) / 10, 5.0))
        low, high = bootstrap(parts, [2.0] * len(parts))
        hits += low <= 0.3 <= high
    assert 80 <= hits <= 99


def test_blocks_share_a_window_without_a_rest():
    trace = Trace.of([0, 10], [0, 10])
    cut = list(blocks(trace, Window(0, 10), [0, 1, 4.9, 5, 9], 5.0))
    assert cut == [
        Block(pytest.approx(12.5), 3, 5.0), Block(pytest.approx(37.5), 2, 5.0),
    ]  # fmt: skip
    assert trace.joules(0, 10) == pytest.approx(50)
    assert trace.joules(2, 3) == pytest.approx(2.5)
    assert Trace.of([2, 1, 1, math.nan], [9, 1, 3, 4]).watts.tolist() == [2, 9]


def test_a_fixed_rate_gives_watt_hours_and_tells_when_it_is_not_held():
    result = energy_of([process(step, n=60, late=7)], METER, fps=1.0)
    assert result["fps"] == 1.0
    assert result["wh_per_hour"] == pytest.approx(5)
    assert any("7 of 60 inferences began late" in note for note in result["notes"])


def test_the_published_fit_is_an_estimate_beside_the_reading():
    meter = Meter("soc", "PMIC", METER.probes, 12.0, number, Fit(1.1451, 0.5879, "a fit"))
    result = energy_of([process(step, hz=12)], meter)
    estimate = result["estimate"]
    assert result["gross_j"] == pytest.approx(0.5, abs=1e-6)
    assert estimate["scope"] == "estimate"
    assert estimate["busy_w"] == pytest.approx(1.1451 * 5 + 0.5879, abs=1e-5)
    assert estimate["gross_j"] == pytest.approx(estimate["busy_w"] * 0.1, abs=1e-6)
    assert estimate["net_j"] == pytest.approx(0.3 * 1.1451, abs=1e-6)


# ------------------------------------------------------------------------------- no figure


def shorter(seconds):
    return (Window(TIMED.begin_s, TIMED.begin_s + seconds), *IDLE)


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (process(step, hz=5), "5.0 readings a second, 10 are needed"),
        (process(step, windows=shorter(10)), "10.0 s were timed, 60 s are needed"),
        (process(step, lost=lambda t: 1060 < t < 1064), "4.0 s without a reading"),
        (process(step, lost=lambda t: 1112 < t < 1120), "8.0 s without a reading"),
        (process(step)[1:], "30 s of idle before and after"),
        ([e for e in process(step) if e["k"] != "timed"], "nothing was timed"),
        ([e for e in process(step) if e["k"] != "sensor"], "the power sensor could not be read"),
        (process(lambda t: math.nan), "could not be read"),
    ],
)
def test_below_the_floors_there_is_a_reason_and_no_figure(run, why):
    result = energy_of([run], METER)
    assert why in " ".join(result["notes"])
    assert all(result[name] is None for name in ("gross_j", "net_j", "busy_w", "wh_per_hour"))


def test_a_few_missing_readings_do_no_harm():
    result = energy_of([process(step, lost=lambda t: int(t * 20) % 7 == 0)], METER)
    assert result["net_j"] == pytest.approx(0.3, abs=1e-6)
    assert result["hz"] == pytest.approx(20 * 6 / 7, rel=0.01)


def test_without_a_sensor_the_reason_is_all_there_is():
    why = "this board has no current sensor"
    assert energy_of([process(step)], None, absent=why)["notes"] == [f"not measurable here: {why}"]
    assert energy_of([], METER)["scope"] is None


@pytest.mark.parametrize(
    "event",
    [
        {"k": "sensor", "at_ns": [1, 2], "values": {"w": ["5"]}},
        {"k": "sensor", "at_ns": ["x", None, -1, 2**80], "values": {"w": ["5"] * 4}},
        {"k": "sensor", "at_ns": [ns(BEGIN + 50.01)], "values": {"w": ["1e308"]}},
        {"k": "sensor", "at_ns": [5], "values": {"w": [None], "v": ["\x00"]}},
        {"k": "sensor", "at_ns": [], "values": None},
        {"k": "sensor"},
    ],
)
def test_hostile_readings_are_no_crash(event):
    result = energy_of([[*process(step), event]], METER)
    assert result["gross_j"] is None or math.isfinite(result["gross_j"])


# ------------------------------------------------------------------------- external meters


def log_of(path, *, offset=0.0, hz=20.0, lead=40.0, tail=25.0, power=step, noise=0.02, seed=1):
    """A meter's log in seconds since its start, which is ``lead`` s before the bench."""
    rng = np.random.default_rng(seed)
    times = np.arange(BEGIN - lead, IDLE[1].end_s + tail, 1 / hz)
    rows = [(t - times[0] + offset, power(t) + rng.normal(0, noise)) for t in times]
    path.write_text("time_s,watts\n" + "".join(f"{t:.4f},{w:.6f}\n" for t, w in rows), "utf-8")
    return path


@pytest.mark.parametrize("lead", [40.0, 43.7, 120.0])
def test_an_external_log_is_found_by_its_step(tmp_path, lead):
    log = read_power_csv(log_of(tmp_path / "m.csv", lead=lead), "usb")
    runs = [[e for e in process(step) if e["k"] != "sensor"]]
    result = energy_of(runs, METER, log=log, battery_wh=10.0)
    assert (result["scope"], result["source"]) == ("usb", "m.csv, column 'watts'")
    assert result["net_j"] == pytest.approx(0.3, rel=0.005)
    assert result["hours_on_battery"] == pytest.approx(2, rel=0.005)
    assert any("step of 3.0" in note or "step of 2.9" in note for note in result["notes"])
    # for 5 s behind the timed part the board draws idle power, but is not yet counted as idle: any
    # place that lies up to 5 s too early fits as well, and is as right
    shift, _ = aligned(log.trace, IDLE, [TIMED])
    assert BEGIN - lead - 0.2 <= shift <= BEGIN - lead + 5.2
    at_once = (IDLE[0], Window(TIMED.end_s, TIMED.end_s + 30))
    shift, _ = aligned(log.trace, at_once, [TIMED])
    assert shift == pytest.approx(BEGIN - lead, abs=0.2)


def test_clocks_that_are_years_apart_and_a_duty_cycle(tmp_path):
    def cycle(t):
        return step(t) if t % 0.5 < 0.25 else IDLE_W + 0.5 * (step(t) > 2)

    path = log_of(tmp_path / "m.csv", offset=1_700_000_000.0, power=cycle)
    log = read_power_csv(path)
    assert log.trace.at_s[0] == 0
    result = energy_of([process(step)], METER, log=log, fps=2.0)
    mean = (5 + 2.5) / 2
    assert result["wh_per_hour"] == pytest.approx(mean, rel=0.01)
    assert result["scope"] == "wall"


@pytest.mark.parametrize(
    ("power", "why"),
    [
        (lambda t: 3.0, "no clear step"),
        (lambda t: 3.0 + math.sin(t / 3), "no clear step"),
        (lambda t: 7.0 - step(t), "no clear step"),  # the load is on another plug
    ],
)
def test_without_a_clear_step_there_is_no_figure(tmp_path, power, why):
    log = read_power_csv(log_of(tmp_path / "m.csv", power=power, lead=60.0))
    result = energy_of([process(step)], METER, log=log)
    assert why in " ".join(result["notes"])
    assert result["net_j"] is None


def test_two_benches_in_one_log_are_not_guessed_between(tmp_path):
    def twice(t):
        return max(step(t), step(t + 200.0))

    log = read_power_csv(log_of(tmp_path / "m.csv", power=twice, lead=260.0))
    result = energy_of([process(step)], METER, log=log)
    assert re.search(r"at two places, (19\d|20\d) s apart", " ".join(result["notes"]))
    short = read_power_csv(log_of(tmp_path / "s.csv", lead=-60.0))
    assert "the log of the meter has" in " ".join(
        energy_of([process(step)], METER, log=short)["notes"]
    )


HEADERS = {
    "time_s,watts": "0.0,5.0",
    "Timestamp(ms),Power(mW)": "0,5000",
    "#time,current,voltage": "0.0,1.0,5.0",
    "Time;Voltage (V);Current (mA);Power factor": "00:00:00,000;5,0;1000,0;0,9",
    "Time [s]\tVbus(V)\tIbus(A)": "0.0\t5.0\t1.0",
    "Timestamp,Main power (W),Main current (A)": "2026-11-22T10:00:00.000Z,5.0,9.9",
    "timestamp sample_in_packet voltage_V current_A dp_V dn_V temp_C_ema energy_Ws capacity_As": (
        "1657568326.775 0 5.00000 1.00000 1.184 1.031 30.500 0.000000 0.000001"
    ),
    'Meter X\nSerial,7\n\n"Time","Power (W)"': '"2026-11-22 10:00:00","5.0"',
}


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_columns_of_common_meters(tmp_path, header, encoding):
    row = HEADERS[header]
    second = {
        "0": "1000", "0.0": "1.0", "00:00:00,000": "00:00:01,000",
        '"2026-11-22 10:00:00"': '"2026-11-22 10:00:01"',
        "2026-11-22T10:00:00.000Z": "2026-11-22T10:00:01.000Z", "1657568326.775": "1657568327.775",
    }  # fmt: skip
    first = next(k for k in sorted(second, key=len, reverse=True) if row.startswith(k))
    path = tmp_path / "m.csv"
    path.write_text(f"{header}\n{row}\n{second[first]}{row[len(first) :]}\n", encoding)
    log = read_power_csv(path)
    assert log.trace.at_s.tolist() == pytest.approx([0, 1])
    assert log.trace.watts.tolist() == pytest.approx([5, 5])


def test_packets_out_of_order_as_a_real_logger_wrote_them(tmp_path):
    # FNIRSI FNB48: baryluk/fnirsi-usb-power-data-logger, README
    path = tmp_path / "fnb48.txt"
    path.write_text(
        "\ntimestamp sample_in_packet voltage_V current_A dp_V dn_V temp_C_ema energy_Ws "
        "capacity_As\n"
        "1657568326.775 0 0.00000 0.00011 1.184 1.031 30.500 0.000000 0.000001\n"
        "1657568326.785 1 0.00000 0.00000 1.184 1.033 30.500 0.000000 0.000001\n"
        "1657568326.805 3 0.00000 0.00000 1.184 1.031 30.500 0.000000 0.000002\n"
        "1657568326.784 0 0.00000 0.00011 1.185 1.032 30.500 0.000000 0.000003\n"
        "1657568326.794 1 0.00000 0.00000 1.184 1.029 30.500 0.000000 0.000003\n"
    )
    log = read_power_csv(path)
    assert np.all(np.diff(log.trace.at_s) > 0)
    assert "out of order" in log.notes[0]
    assert "'voltage_V' x 'current_A'" in log.source


@pytest.mark.parametrize(
    ("first", "last", "seconds"),
    [
        ("23:59:59.5", "00:00:00.5", 1.0),
        ("1732269600123", "1732269601123", 1.0),  # epoch in milliseconds, without a unit
        ("1732269600", "1732269601", 1.0),
        ("2026-11-22T10:00:00+02:00", "2026-11-22T08:00:02Z", 2.0),
    ],
)
def test_times_in_the_forms_that_meters_write(tmp_path, first, last, seconds):
    path = tmp_path / "m.csv"
    path.write_text(f"time,power\n{first},5\n{last},5\n")
    assert read_power_csv(path).trace.at_s[-1] == pytest.approx(seconds, abs=1e-3)


def good_rows(n=50):
    return [f"{i / 10},5.0" for i in range(n)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no columns"),
        ("a,b\n1,2\n", "no columns"),
        ("time,current\n0,1\n1,1\n", "no columns"),  # no volts, no watts
        ("time,power factor\n0,1\n1,1\n", "no columns"),
        ("time,power\n", "0 of 0 rows"),
        ("time,power\n" + "\n".join([*good_rows(), *["x,nan"] * 10]), "10 of 60 rows"),
        ("time,power\n0,nan\n1,inf\n", "2 of 2 rows"),
        ("time,power\n0,-5\n1,-5\n2,-5\n", "power is negative"),
        ("time,power\n0,5230\n1,52300\n", "power of 52,300 W at scope wall"),
        ("time,power\n100,5\n0,5\n1,5\n", "time runs back by 100 s"),
        ("time,power\n0,5\n9e9,5\n", "days"),
        ("\x00" * 5000, "no columns"),
        ("time,power" + "x" * 100_000, "no columns"),
    ],
)
def test_logs_that_cannot_be_power_over_time_are_refused(tmp_path, text, why):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(FileInvalid) as caught:
        read_power_csv(path)
    assert why in caught.value.message
    assert caught.value.hint
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("scope", ["usb", "module", "soc", "battery"])
@pytest.mark.parametrize("header", ["time,power", "time,voltage,current"])
def test_milliwatts_under_a_title_without_a_unit_are_no_watts(tmp_path, scope, header):
    path = tmp_path / "meter.csv"
    cells = "2701" if "power" in header else "5.1,529.6"
    path.write_text(f"{header}\n" + "".join(f"{i / 10},{cells}\n" for i in range(50)))
    assert read_power_csv(path, "wall").trace.watts.max() == pytest.approx(2701, abs=1)
    with pytest.raises(FileInvalid, match=rf"2,701 W at scope {scope}, more than the 300 W") as why:
        read_power_csv(path, scope)
    assert "as in 'power_mw'" in why.value.message  # it is what a bench keeps of the error
    path.write_text(path.read_text().replace("power", "power_mw").replace("current", "current_ma"))
    assert read_power_csv(path, scope).trace.watts.max() == pytest.approx(2.701, rel=1e-3)


def test_a_log_without_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    path = tmp_path / "endless.csv"
    path.write_text("time,power\n" + "\n".join(good_rows(200)))
    monkeypatch.setattr(power_csv, "LARGEST_ROWS", 100)
    with pytest.raises(FileInvalid, match="more than 100 readings"):
        read_power_csv(path)
    with path.open("r+b") as stream:  # a sparse file: 1 TiB that takes no space
        stream.truncate(1 << 40)
    with pytest.raises(FileInvalid, match="1048576 MiB"):
        read_power_csv(path)
    with pytest.raises(FileInvalid, match="cannot read"):
        read_power_csv(tmp_path / "absent.csv")


def test_a_few_bad_rows_are_told_and_left_out(tmp_path):
    path = tmp_path / "m.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["Time (s)", "Power (W)"])
        writer.writerows([[i / 10, 5.0] for i in range(100)])
        writer.writerows([["OVERLOAD", ""], ["10.0", "nan"]])
    log = read_power_csv(path)
    assert len(log.trace.at_s) == 100
    assert log.notes == ("2 of 102 rows of m.csv cannot be read",)


# --------------------------------------------------------------------- through the real agent


@pytest.mark.slow
def test_a_sensor_of_the_board_is_read_by_the_agent_itself(tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason="the tiny model is built with onnx")
    pytest.importorskip("onnxruntime", reason="runs the tiny model")
    from tiny_bench import MINI, bench, images_and_logits, write_onnx, write_stage

    from edgessl.devices import bench as whole
    from edgessl.devices import choice, energy

    # the floors of the protocol, for seconds in place of minutes
    monkeypatch.setattr(energy, "WINDOW_S", 0.6)
    monkeypatch.setattr(energy, "IDLE_S", 0.4)
    monkeypatch.setattr(energy, "BLOCK_S", 0.1)
    monkeypatch.setattr(energy, "RATE_HZ", 1.0)
    monkeypatch.setattr(whole, "IDLE_S", 0.4)
    monkeypatch.setattr(choice, "WINDOW_S", 0.6)
    (tmp_path / "watts").write_text("5.0\n")
    probe = Probe("w", file=str(tmp_path / "wat*"))

    def watts(texts):
        return float(texts["w"].split("\t")[1])

    meter = Meter("module", "a file", (probe,), 50.0, watts)
    device = LinuxDevice(Board("local"), LocalShell(), Traits(meter=lambda _facts: meter))
    path, weights = write_onnx(tmp_path)
    stage = write_stage(tmp_path / "stage", [path], "onnx", *images_and_logits(weights))
    try:
        result = bench(device, stage, tmp_path / "out", preset=MINI, energy=True)
    finally:
        device.close()
    found = result.energy
    assert found["scope"] == "module", found["notes"]
    timed = result.protocol["timed"][0]
    assert timed["s"] >= 0.6
    assert found["idle_w"] == found["busy_w"] == pytest.approx(5)
    assert found["gross_j"] == pytest.approx(5 * timed["s"] / timed["n"])
    assert found["net_j"] == pytest.approx(0, abs=1e-9)
    assert "net cannot be told from zero" in found["notes"]
    assert found["j_per_correct"] == pytest.approx(found["gross_j"] / (60 / 90))
