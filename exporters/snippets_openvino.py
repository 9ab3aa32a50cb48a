"""The script that is put beside an OpenVINO file: how to run it, and proof that it runs right."""

from __future__ import annotations

import pprint
from collections.abc import Sequence
from string import Template

from edgessl.core.artifact import InputSpec, OutputSpec
from edgessl.exporters.base import Written

# of the largest logit: other processors add and round in another order
TOLERANCE = 0.05

SCRIPT = Template('''\
"""Run $model with OpenVINO.

    python example.py              repeats the golden logits; exits with 1 if they differ
    python example.py IMAGE.npy    answers for one image, uint8 ($height, $width, 3)

Images are RGB$fitting.
Needs nothing but: pip install openvino numpy
"""

import sys
from pathlib import Path

import numpy as np

sys.modules["openvino_telemetry"] = None  # openvino must not report how it is used
import openvino  # noqa: E402

HERE = Path(__file__).resolve().parent
CLASSES = $classes
HEIGHT, WIDTH = $height, $width
$constants
TOLERANCE = $tolerance  # of the largest logit: processors round differently


def prepare(images):
    """Turn RGB pixels, uint8 (N, HEIGHT, WIDTH, 3), into what the model takes."""
$prepare


def load():
    """Compile the model for one thread of the CPU.

    f32: in bfloat16, the default of newer processors, the logits below would not come out. For
    speed, leave the settings out and compare the answers on images of your own.
    """
    settings = {
        "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1
    }
    return openvino.Core().compile_model(HERE / "$model", "CPU", settings)


def logits(model, images):
    """Return float32 logits (N, classes) of uint8 images (N, HEIGHT, WIDTH, 3)."""
    rows = [model({0: x[None]})[0].copy() for x in prepare(images)]
$logits


def describe(row):
    """Return the answer to one image in words."""
    best = int(row.argmax())
    name = CLASSES[best] if CLASSES else f"number {best}"
    return f"{name} (logit {row[best]:.3f})"


def check(model):
    """Compare with what was recorded when the file was exported; return the exit code."""
    golden = np.load(HERE / "golden.npz", allow_pickle=False)
    got, expected = logits(model, golden["images"]), golden["expected"]
    for row in got:
        print(describe(row))
    difference = float(np.abs(got - expected).max() / np.abs(expected).max())
    same = difference <= TOLERANCE  # a logit that is not a number is not the same
    print(
        f"{'ok' if same else 'DIFFERENT'}: {len(got)} images, largest difference "
        f"{difference:.2g} of the largest logit, {TOLERANCE} allowed"
    )
    return 0 if same else 1


def main():
    model = load()
    if len(sys.argv) == 1:
        return check(model)
    image = np.load(sys.argv[1], allow_pickle=False)
    if image.dtype != np.uint8 or image.shape != (HEIGHT, WIDTH, 3):
        print(f"want uint8 ({HEIGHT}, {WIDTH}, 3), got {image.dtype} {image.shape}")
        return 1
    print(describe(logits(model, image[None])[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
''')


def script(written: Written, classes: Sequence[str]) -> str:
    """Return the script for a file.

    Args:
        written: Its contract.
        classes: Names in the order of the logits; none for an embedding model.
    """
    constants, prepare = _prepare(written.input)
    height, width = written.input.side
    return SCRIPT.substitute(
        model=written.files[0],
        height=height,
        width=width,
        fitting=_fitting(written.input),
        classes=pprint.pformat(list(classes), width=96, compact=True),
        constants=constants,
        prepare=prepare,
        logits=_logits(written.output),
        tolerance=TOLERANCE,
    )


def _fitting(spec: InputSpec) -> str:
    if spec.raw:
        return ", as the camera gives them"
    return (
        f": resize the short side to {spec.resize} pixels (bilinear with antialias,\n"
        f"as Pillow does it), then cut {spec.height} x {spec.width} from the centre"
    )


def _prepare(spec: InputSpec) -> tuple[str, str]:
    """Return constants, and the body of ``prepare``."""
    if spec.takes_pixels:
        return (
            "# the model scales and normalises inside",
            "    return np.ascontiguousarray(images)",
        )
    low, high = spec.value_range
    constants = [
        f"LOW, HIGH = {low!r}, {high!r}  # what pixel values 0 and 255 become",
        f"MEAN = np.array({list(spec.mean)!r}, np.float32)",
        f"STD = np.array({list(spec.std)!r}, np.float32)",
    ]
    body = [
        "x = images.astype(np.float32) * np.float32((HIGH - LOW) / 255) + np.float32(LOW)",
        "x = (x - MEAN) / STD",
    ]
    if spec.layout == "NCHW":
        body.append("x = x.transpose(0, 3, 1, 2)  # (N, 3, HEIGHT, WIDTH)")
    if spec.quantized is not None:
        scale, zero_point = spec.quantized.scale, spec.quantized.zero_point
        constants.append(
            f"INPUT_SCALE, INPUT_ZERO_POINT = {scale!r}, {zero_point}"
            "  # real = (integer - zero point) * scale"
        )
        body += [
            "x = np.rint(x / np.float32(INPUT_SCALE)) + INPUT_ZERO_POINT",
            f"limits = np.iinfo(np.{spec.dtype})",
            f"x = x.clip(limits.min, limits.max).astype(np.{spec.dtype})",
        ]
    body.append("return np.ascontiguousarray(x)")
    return "\n".join(constants), "\n".join(f"    {line}" for line in body)


def _logits(spec: OutputSpec) -> str:
    if spec.quantized is None:
        return "    return np.concatenate(rows)"
    scale, zero_point = spec.quantized.scale, spec.quantized.zero_point
    return (
        f"    integers = np.concatenate(rows).astype(np.float32)\n"
        f"    return (integers - {zero_point}) * np.float32({scale!r})"
    )
