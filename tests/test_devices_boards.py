"""What boards say about themselves: recorded lines of several versions, and hostile ones."""

import tomllib
from pathlib import Path

import pytest

from edgessl.devices import (
    events,
    ina3221,
    jetson,
    l4t,
    plain,
    raspberry_pi,
    tegrastats,
    vcgencmd,
)
from edgessl.devices.base import Meter

RECORDED = Path(__file__).parent / "recorded"


def recorded(name):
    return tomllib.loads((RECORDED / name).read_text("utf-8"))


PI, JETSON = recorded("raspberry_pi.toml"), recorded("jetson.toml")
LINES = recorded("tegrastats.toml")["line"]
GARBAGE = [
    "", "\x00", "=", "NaN", "throttled=0xzz", "throttled=0x" + "f" * 400, "x" * 100_000,
    "temp=nan'C", "frequency(1)=" + "9" * 400, "VDD_CORE_A current(7)=1e999A",
    "RAM 1/", "CPU [", "CPU []", "CPU [,,]@", "GR3D_FREQ 1%@[", "@C", "cpu@--C", "VDD_IN 1mW/",
    "NV Power Mode:", "NV Power Mode:\n7", "# R (release), REVISION:", "(((", "[@]off",
    "\x1b[31mVDD_IN 5mW/5mW", "RAM 1/2MB " * 5000, "(" * 60_000, "\n" * 60_000, "#" * 60_000,
    "\tVDD_IN", "/\t/",
]  # fmt: skip


@pytest.mark.parametrize("text", [*GARBAGE, *PI["refused"]], ids=range(len(GARBAGE) + 6))
def test_what_is_no_answer_is_none_and_never_an_error(text):
    assert vcgencmd.throttled(text) is None
    assert vcgencmd.celsius(text) is None
    assert vcgencmd.megahertz(text) is None
    assert vcgencmd.rail_watts(text) is None
    assert l4t.release(text) is None
    assert l4t.power_mode(text) is None
    assert l4t.packages(text) == {}
    assert len(tegrastats.parse(text).rails_mw) <= 1
    assert ina3221.total_watts(dict.fromkeys((p.name for p in ina3221.PROBES), text)) is None


# ------------------------------------------------------------------------------ Raspberry Pi


def test_the_firmware_of_a_pi_in_its_own_words():
    for entry in PI["throttled"]:
        assert vcgencmd.throttled(entry["text"]) == entry["bits"]
    for entry in PI["temperature"]:
        assert vcgencmd.celsius(entry["text"]) == entry["celsius"]
    for entry in PI["clock"]:
        assert vcgencmd.megahertz(entry["text"]) == entry["mhz"]


@pytest.mark.parametrize("reading", PI["pmic"], ids=lambda r: r["board"])
def test_the_rails_of_a_pi_5_are_paired_by_name_and_summed(reading):
    pairs = vcgencmd.rails(reading["text"])
    assert len(pairs) == reading["rails"]
    assert "EXT5V" not in pairs  # no current, no power
    assert vcgencmd.rail_watts(reading["text"]) == pytest.approx(reading["watts"], abs=1e-6)
    # a reading that was cut off would be too low: it is none
    whole = reading["text"].splitlines()
    assert vcgencmd.rail_watts("\n".join(whole[:20])) is None
    assert vcgencmd.rail_watts("\n".join(line for line in whole if "HDMI_V" not in line)) is None


@pytest.mark.parametrize(
    ("before", "after", "between", "happened", "unknown"),
    [
        (0x0, 0x0, [], [], []),
        (0x0, 0x50000, [], ["under-voltage", "throttled"], []),
        (0x50000, 0x50000, [], [], ["under-voltage", "throttled"]),
        # set before, and seen again at a moment of the run
        (0x50000, 0x50000, [0x50004], ["throttled"], ["under-voltage"]),
        (0x80000, 0xA0000, [], ["clock capped"], ["soft temperature limit"]),
    ],
)
def test_only_what_is_new_or_was_seen_happened_during_the_run(
    before, after, between, happened, unknown
):
    assert vcgencmd.during(before, after, between) == (happened, unknown)


def tel(phase, t, **probes):
    return {"k": "tel", "t": t, "phase": phase, "probes": probes}


def pi_run(*, bits=(0x0, 0x0), **first):
    return [
        tel("before", 0, throttled=f"throttled={bits[0]:#x}", **first),
        tel("during", 5, arm_clock="frequency(48)=1500345728"),
        tel("end", 9, throttled=f"throttled={bits[1]:#x}", arm_clock="frequency(48)=2400033792"),
    ]


def test_conditions_of_a_pi_say_what_happened_and_how_fast_it_ran():
    quiet = list(raspberry_pi.conditions([pi_run(firmware_temp="temp=55.8'C")]))
    assert "no under-voltage, capping or throttling while it ran" in quiet
    assert "clock by the firmware: 1500 to 2400 MHz" in quiet
    assert "temperature by the firmware: 55.8 C before, 55.8 C after" in quiet
    hot = list(raspberry_pi.conditions([pi_run(), pi_run(bits=(0x0, 0x40000))]))
    assert "throttled happened while it ran in repeat 2" in hot
    alarm = pi_run(supply="/sys/class/hwmon/hwmon1/in0_lcrit_alarm\t1")
    assert "under-voltage happened while it ran" in list(raspberry_pi.conditions([alarm]))
    fan = pi_run(fan_pwm="/sys/class/hwmon/hwmon2/pwm1\t51", fan_rpm="/sys/x/fan1_input\t2140")
    assert "fan: 20% of full power, 2140 turns a minute" in list(raspberry_pi.conditions([fan]))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "vcgencmd is not installed"),
        ("/usr/bin/vcgencmd\npi sudo", "no /dev/vcio"),
        ("/usr/bin/vcgencmd\ncrw-rw---- 1 root video 100, 0 /dev/vcio\npi sudo", "usermod -aG"),
        ("/usr/bin/vcgencmd\ncrw-rw---- 1 root v 100, 0 /dev/vcio\npi video", "gave no answer"),
    ],
)
def test_a_silent_firmware_is_not_observable_and_says_what_to_do(said, why):
    (line, *_) = raspberry_pi.conditions([[tel("before", 0, vcgencmd_rights=said)]])
    assert line.startswith("not observable here: supply, capping and throttling")
    assert why in line


@pytest.mark.parametrize(
    ("model", "is_pi", "metered"),
    [
        ("Raspberry Pi 5 Model B Rev 1.0", True, True),
        ("Raspberry Pi 500 Rev 1.0", True, True),
        ("Raspberry Pi Compute Module 5 Rev 1.0", True, True),
        ("Raspberry Pi 4 Model B Rev 1.4", True, False),
        ("Raspberry Pi Zero 2 W Rev 1.0", True, False),
        ("Raspberry Pi Compute Module 4 Rev 1.1", True, False),
        ("Orange Pi 5", False, False),
        (None, False, False),
        ("\x1b[2Jevil\n", False, False),
    ],
)
def test_which_boards_are_a_pi_and_which_have_a_meter(model, is_pi, metered):
    reason = raspberry_pi.mismatch({"board": model})
    assert (reason == "") is is_pi
    assert reason.isprintable()
    meter = raspberry_pi.meter({"board": model})
    assert isinstance(meter, Meter) is metered
    if meter:
        text = PI["pmic"][0]["text"]
        assert meter.watts({"pmic": text}) == pytest.approx(PI["pmic"][0]["watts"])
        assert meter.watts({}) is None
        assert meter.scope == "soc"
        assert (meter.fit.slope, meter.fit.offset_w) == (1.1451, 0.5879)
        assert meter.hz >= 10


# ------------------------------------------------------------------------------------ Jetson


@pytest.mark.parametrize("entry", LINES, ids=lambda e: e["board"])
def test_tegrastats_in_all_its_shapes(entry):
    line = tegrastats.parse(entry["text"])
    assert len(line.cores) == entry["cores"]
    assert line.cores.count(None) == entry.get("off", 0)
    gpu = [line.gpu_load if line.gpu_load is not None else "-", line.gpu_mhz]
    assert [v for v in gpu if v is not None] == (entry["gpu"] or ["-"])
    assert [v for v in (line.emc_load, line.emc_mhz) if v is not None] == entry.get("emc", [])
    assert line.celsius.get("cpu") == entry.get("cpu_c", line.celsius.get("cpu"))
    assert "pmic" not in line.celsius  # a constant
    assert all(-40 < value < 110 for value in line.celsius.values())  # -256 is an unpowered one
    assert not {"NC", "RAM", "SWAP", "IRAM", "CPU_"} & set(line.rails_mw)
    found = ina3221.total(line.rails_mw)
    if "watts" in entry:
        assert found is not None
        assert found[0] == pytest.approx(entry["watts"])
    else:
        assert found is None
    if "RAM" in entry["text"]:
        used, total = line.ram_mb
        assert 0 < used <= total


def reading_of(files):
    """One reading of the meter's probes, as the agent would send it from these files."""
    texts = {}
    for probe in ina3221.PROBES:
        old = "ina3221x" in probe.file
        pattern = probe.file.split("/")[-1]
        root = "/sys/bus/i2c/drivers/ina3221x/" if old else "/sys/class/hwmon/"
        lines = [
            f"{root}{name}\t{content}"
            for name, content in files.items()
            if ("iio" in name) == old and Path(name).match(pattern)
        ]
        texts[probe.name] = "\n".join(lines)
    return texts


@pytest.mark.parametrize("entry", JETSON["rails"], ids=lambda e: e["board"])
def test_power_from_the_files_of_the_drivers(entry):
    texts = reading_of(entry["files"])
    assert set(ina3221.rails_mw(texts)) == set(entry["names"])
    assert ina3221.total_watts(texts) == pytest.approx(entry["watts"])
    assert jetson.meter({}).watts(texts) == pytest.approx(entry["watts"])
    # a channel that is off answers with an error, and is missing: a sum without it is none
    total = ina3221.total(ina3221.rails_mw(texts))[1]
    label = next(k for k, v in entry["files"].items() if v == total[-1])
    without = {k: v for k, v in entry["files"].items() if k != label}
    assert ina3221.total_watts(reading_of(without)) is None


def test_the_input_of_thors_carrier_board():
    files = {
        "hwmon2/name": "ina3221", "hwmon2/in1_label": "VDD_GPU", "hwmon2/in1_input": "12040",
        "hwmon2/curr1_input": "640", "hwmon5/name": "ina238", "hwmon5/power1_input": "26686000",
    }  # fmt: skip
    assert ina3221.total_watts(reading_of(files)) == pytest.approx(26.686)
    assert ina3221.total_watts(reading_of(files | {"hwmon5/power1_input": "-1"})) is None
    assert ina3221.total_watts(reading_of(files | {"hwmon5/power1_input": "9e99"})) is None


def test_release_mode_and_packages_of_a_jetson():
    for entry in JETSON["release"]:
        assert l4t.release(entry["text"]) == l4t.Release(entry["version"], entry["jetpack"])
    for entry in JETSON["power_mode"]:
        mode = l4t.power_mode(entry["text"])
        assert mode == l4t.PowerMode(entry["name"], entry.get("number"))
        assert l4t.fan_mode(entry["text"]) == entry.get("fan", "")
    assert l4t.versions(JETSON["packages"]) == JETSON["versions"]
    assert l4t.release("# R99 (release), REVISION: 1.0") == l4t.Release("99.1.0", None)


GPU = "/sys/class/devfreq/17000000.gpu/"
COOL = "/sys/class/thermal/cooling_device"
HW = "/sys/class/hwmon/hwmon"


def jetson_run(providers=("TensorrtExecutionProvider",), *, floor=306, now=(306, 918), **last):
    return [
        tel("before", 0, release=JETSON["release"][0]["text"], events=f"{HW}3/oc3_event_cnt\t7"),
        {"k": "loaded", "t": 1, "providers": list(providers)},
        *(
            tel(
                "during", t,
                gpu_now=f"{GPU}cur_freq\t{mhz}000000", cooling_state=f"{COOL}8/cur_state\t0",
            )
            for t, mhz in enumerate(now, 2)
        ),
        tel(
            "end", 9,
            gpu_min=f"{GPU}min_freq\t{floor}000000",
            gpu_max=f"{GPU}max_freq\t918000000\n/sys/class/devfreq/13e00000.host1x/max_freq\t1",
            gpu_governor=f"{GPU}governor\tnvhost_podgov",
            **last,
        ),
    ]  # fmt: skip


def test_conditions_of_a_jetson_under_its_default_governor():
    lines = list(
        jetson.conditions(
            [
                jetson_run(
                    power_mode=JETSON["power_mode"][0]["text"],
                    packages=JETSON["packages"],
                    tegrastats=LINES[7]["text"],
                    fan_pwm=f"{HW}2/pwm1\t54",
                )
            ]
        )
    )
    assert "Linux for Tegra 36.4.7 (JetPack 6)" in lines
    assert "installed: JetPack 6.2.1, CUDA 12.6.68, cuDNN 9.3.0.75, TensorRT 10.3.0.30" in lines
    assert "power mode: 25W (mode 1)" in lines
    assert "clock 17000000.gpu: 306 to 918 of at most 918 MHz (nvhost_podgov)" in lines
    assert "4 of 5 cores are switched off" in lines
    assert any("jetson_clocks needs root" in line for line in lines)
    assert not any("locked clock" in line or "throttled" in line for line in lines)


def test_a_locked_clock_must_hold_and_another_may_move():
    steady = list(jetson.conditions([jetson_run(floor=918, now=(918, 900))]))
    assert "clock 17000000.gpu: 900 to 918 of at most 918 MHz (locked)" in steady
    assert not any("did not hold" in line for line in steady)
    lost = list(jetson.conditions([jetson_run(floor=918, now=(918, 612))]))
    assert "the locked clock of 17000000.gpu did not hold: 612 MHz" in lost
    memory = list(jetson.conditions([jetson_run(clocks=JETSON["clocks"])]))
    assert "memory clock locked (jetson_clocks)" in memory


def test_alarms_of_a_jetson_during_the_run():
    lines = list(
        jetson.conditions(
            [
                jetson_run(
                    cooling_type=f"{COOL}8/type\tgpu-throttle-alert\n{COOL}9/type\tpwm-fan",
                    cooling_state=f"{COOL}8/cur_state\t1\n{COOL}9/cur_state\t3",
                    events=f"{HW}3/oc2_event_cnt\t0\n{HW}3/oc3_event_cnt\t19",
                    rail_label=f"{HW}1/in1_label\tVDD_IN",
                    rail_critical=f"{HW}1/curr1_crit_alarm\t1",
                    rail_warning=f"{HW}1/curr1_max_alarm\t0",
                )
            ]
        )
    )
    assert "throttled by heat: gpu-throttle-alert" in lines
    assert "slowed down by the supply while it ran: over-current peaks, 12 times" in lines
    assert "critical current on VDD_IN while it ran" in lines
    assert not any("warning current" in line for line in lines)


@pytest.mark.parametrize(
    ("asked", "used", "named"),
    [
        ("CUDAExecutionProvider", ["CPUExecutionProvider"], True),
        ("TensorrtExecutionProvider", ["CPUExecutionProvider"], True),
        ("CUDAExecutionProvider", ["CUDAExecutionProvider", "CPUExecutionProvider"], False),
        ("CPUExecutionProvider", ["CPUExecutionProvider"], False),
        ("CUDAExecutionProvider", None, False),
    ],
)
def test_a_silent_fallback_is_named_with_what_to_install(asked, used, named):
    run = [*jetson_run(used or ()), {"k": "asked", "provider": asked}]
    found = list(jetson.findings([run]))
    assert bool(found) is named
    if named:
        assert found[0][0] == "WRONG_BACKEND"
        assert "Jetson AI Lab index (jp6)" in found[0][1]
        assert "the GPU was not used" in list(jetson.conditions([run]))


@pytest.mark.parametrize(
    ("model", "is_jetson"),
    [
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", True),
        ("NVIDIA Orin NX Developer Kit", True),
        ("NVIDIA Jetson Nano Developer Kit", True),
        ("Jetson-AGX", True),
        ("quill", True),
        ("NVIDIA Jetson AGX Thor Developer Kit", True),
        ("Raspberry Pi 5 Model B Rev 1.0", False),
        ("NanoPi R5S", False),
        ("", False),
    ],
)
def test_which_boards_are_a_jetson(model, is_jetson):
    assert (jetson.mismatch({"board": model}) == "") is is_jetson


def test_runtimes_are_tried_gpu_first():
    assert jetson.TRAITS.runtimes["onnx"] == (
        "tensorrt",
        "onnxruntime:TensorrtExecutionProvider",
        "onnxruntime:CUDAExecutionProvider",
        "onnxruntime",
    )


@pytest.mark.parametrize("traits", [raspberry_pi.TRAITS, jetson.TRAITS], ids=["rpi", "jetson"])
def test_a_hostile_board_gives_lines_that_can_be_printed_and_no_error(traits):
    texts = [*GARBAGE, "/sys/\x1b[2J/x\t\x07" * 50, "a\tb\n" * 3000, "\t\t\t"]
    names = {p.name for p in traits.probes}
    for text in texts:
        run = [
            tel("before", 0, **dict.fromkeys(names, text)),
            tel("during", 1, **dict.fromkeys(names, text)),
            {"k": "loaded", "t": 1, "providers": [text]},
            tel("end", 2, **dict.fromkeys(names, text)),
        ]
        for line in [*traits.conditions([run]), *(t for _, t in traits.findings([run]))]:
            assert line.isprintable()
            assert len(line) < 600
    assert list(traits.conditions([[], []])) is not None
    assert plain.shown("a\x1b[31mb\u202ec\n") == "a [31mb c"


def test_probes_are_read_by_programs_of_the_board_alone():
    for traits in (raspberry_pi.TRAITS, jetson.TRAITS):
        names = [p.name for p in traits.probes]
        assert len(names) == len(set(names))
        for probe in traits.probes:
            assert bool(probe.argv) != bool(probe.file)
            assert probe.file == "" or probe.file.startswith(("/sys/", "/etc/"))
    assert events.last([], "loaded") == {}
