"""Which runtime and provider run a file on a board, from what is there and what is asked."""

import pytest

from edgessl.core.artifact import Artifact, InputSpec
from edgessl.core.errors import UsageProblem
from edgessl.devices.base import Traits
from edgessl.devices.choice import Asked, check_rate, runtime_for
from edgessl.devices.energy import IDLE_S, WINDOW_S
from edgessl.devices.profile import profile_rows
from edgessl.devices.protocol import PRESETS, expected_seconds

QUICK = Asked(PRESETS["quick"])
CUDA, TRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
JETSON = Traits(
    runtimes={"onnx": ("tensorrt", f"onnxruntime:{TRT}", f"onnxruntime:{CUDA}", "onnxruntime")}
)


def artifact(form="onnx", **facts):
    return Artifact(
        artifact_kind="export", format=form, files={"model": "0"}, seal="0",
        input=InputSpec.square(32), facts=facts,
    )  # fmt: skip


def chosen(traits=Traits(), runtimes=(), providers=(), asked=QUICK, **file):  # noqa: B008
    facts = {"runtimes": dict.fromkeys(runtimes, "1.0"), "providers": list(providers)}
    return runtime_for(artifact(**file), asked, traits, facts)


def test_a_board_takes_the_best_that_is_installed_there():
    assert chosen() == ("onnxruntime", "CPUExecutionProvider")
    assert chosen(form="tflite") == ("litert", "XNNPACK")
    assert chosen(JETSON, ["tensorrt", "onnxruntime"]) == ("tensorrt", "TensorRT")
    assert chosen(JETSON, ["onnxruntime-gpu"]) == ("onnxruntime", TRT)
    assert chosen(JETSON, ["onnxruntime"], [CUDA]) == ("onnxruntime", CUDA)
    assert chosen(JETSON, ["onnxruntime"]) == ("onnxruntime", "CPUExecutionProvider")


def test_what_is_asked_for_is_taken_even_where_it_is_not_seen():
    """The agent then says what is missing, or the verdict what ran instead."""
    asked = Asked(PRESETS["quick"], provider=CUDA)
    assert chosen(asked=asked) == ("onnxruntime", CUDA)
    assert chosen(asked=Asked(PRESETS["quick"], runtime="tensorrt"))[0] == "tensorrt"
    for runtime, said in (("litert", "do not run with 'litert'"), ("tensort", "unknown runtime")):
        with pytest.raises(UsageProblem, match=said):
            chosen(asked=Asked(PRESETS["quick"], runtime=runtime))
    with pytest.raises(UsageProblem, match="no runtime on a device reads 'coreml'"):
        chosen(form="coreml")


def test_a_file_made_for_tensorrt_is_never_timed_on_the_cpu():
    file = {"target": "tensorrt"}
    assert chosen(JETSON, ["onnxruntime"], **file)[0] == "tensorrt"
    assert chosen(JETSON, ["onnxruntime-gpu"], **file) == ("onnxruntime", TRT)


def test_energy_stretches_the_window_and_the_minutes_that_are_told():
    plain, energy = QUICK, Asked(PRESETS["quick"], energy=True)
    assert plain.floors == PRESETS["quick"]
    assert energy.floors.timed_s == WINDOW_S
    assert energy.seconds == pytest.approx(expected_seconds(energy.floors) + 2 * IDLE_S)
    standard = Asked(PRESETS["standard"], energy=True)
    assert standard.floors == PRESETS["standard"]
    assert standard.seconds == pytest.approx(expected_seconds(PRESETS["standard"]) + 6 * IDLE_S)


def test_a_low_rate_takes_longer_and_one_that_cannot_end_is_refused():
    standard = PRESETS["standard"]
    slow, fast = Asked(standard, fps=2.0), Asked(standard, fps=60.0)
    assert slow.seconds == pytest.approx(3 * (20 / 2 + 2 * 2 + 1024 / 2 + 3))
    assert fast.seconds == Asked(standard).seconds
    for asked in (slow, fast, Asked(standard), Asked(PRESETS["sustained"], fps=0.1)):
        check_rate(asked)
    with pytest.raises(UsageProblem, match="at 1 images a second 'standard' cannot take its 1024"):
        check_rate(Asked(standard, fps=1.0))
    with pytest.raises(UsageProblem) as caught:
        check_rate(Asked(standard, fps=1.70))
    assert "--fps 1.71;" in caught.value.hint
    check_rate(Asked(standard, fps=1.71))


def test_rows_of_a_profile_find_their_module():
    modules = {"conv_1": "features.0.0", "conv_12": "features.3.1", "relu_3": "features.4.0"}
    names = ["conv_12_kernel", "conv_1", "fused[conv_12, relu]", "relu_3_nchwc", "reorder"]
    rows = [{"name": n, "op": "x", "p50": 1.0, "share": 0.2} for n in names]
    found = [row["module"] for row in profile_rows(rows, modules)]
    assert found == [None, "features.0.0", "features.3.1", "features.4.0", None]
