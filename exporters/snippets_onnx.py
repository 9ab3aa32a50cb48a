"""The script that is written beside an ONNX file: its contract as code that a product can copy."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

from edgessl.core.artifact import InputSpec, Quantized
from edgessl.exporters.base import Written

# relative to the largest logit; other processors may round 8-bit sums elsewhere
TOLERANCE = 0.05

SCRIPT = Template('''\
"""Run $file with ONNX Runtime and numpy.

python example.py             compare with golden.npz; exit code 1 when the logits differ
python example.py image.npy   the class of one image: RGB, uint8, ($height, $width, 3)
"""

import os
import sys
from pathlib import Path

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read by the next import
import onnxruntime

HERE = Path(__file__).resolve().parent
CLASSES = $classes
$constants

def prepare(images):
    """Turn RGB images, uint8 (N, $height, $width, 3), into what the model takes."""
    if images.dtype != np.uint8 or images.shape[1:] != ($height, $width, 3):
        raise SystemExit(f"want uint8 ($height, $width, 3), got {images.dtype} {images.shape[1:]}")
$prepare

def logits_of(outputs):
    """Turn what the model gives into one float32 row of logits for each image."""
$logits

def load():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        str(HERE / "$file"), options, providers=["CPUExecutionProvider"]
    )


def run(session, images):
    """Return the logits of RGB images, uint8 (N, $height, $width, 3): float32 (N, classes)."""
    inputs = prepare(images)
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: inputs[i : i + 1]})[0] for i in range(len(inputs))]
    return logits_of(np.concatenate(rows))


def answer(row):
    best = int(row.argmax())
    return CLASSES[best] if best < len(CLASSES) else f"class {best}"


def check(session):
    """Return 0 when the model gives here what it gave where it was made, else 1."""
    golden = np.load(HERE / "golden.npz", allow_pickle=False)
    expected = golden["expected"]
    logits = run(session, golden["images"])
    for number, row in enumerate(logits):
        print(f"golden image {number}: {answer(row)}")
    difference = np.abs(logits - expected).max() / np.abs(expected).max()
    same = bool(difference <= $tolerance)
    print(f"largest difference: {difference:.2g} of the largest logit:", "ok" if same else "WRONG")
    return 0 if same else 1


if __name__ == "__main__":
    model = load()
    if len(sys.argv) > 1:
        print(answer(run(model, np.load(sys.argv[1], allow_pickle=False)[None])[0]))
        sys.exit(0)
    sys.exit(check(model))
''')

NORMALISE = """\
    x = images.astype(np.float32) * $factor + $low
    x = (x - MEAN) / STD
"""
TO_INTEGERS = """\
    x = np.rint(x / INPUT_SCALE) + INPUT_ZERO_POINT
    x = x.clip($smallest, $largest).astype(np.$dtype)
"""


def script(written: Written, classes: Sequence[str]) -> str:
    """Return the text of ``example.py``.

    Args:
        written: Of a file that ONNX Runtime opens.
        classes: Names in the order of the logits; may be empty.
    """
    spec, output = written.input, written.output
    height, width = spec.side
    constants = _preparation_constants(spec)
    if output.quantized is not None:
        constants += _scales("OUTPUT", output.quantized)
    return SCRIPT.substitute(
        file=written.files[0],
        height=height,
        width=width,
        classes=_listed(classes),
        constants=constants,
        prepare=_preparation(spec),
        logits=(
            "    return outputs.astype(np.float32)\n"
            if output.quantized is None
            else "    offset = outputs.astype(np.float32) - OUTPUT_ZERO_POINT\n"
            "    return offset * OUTPUT_SCALE\n"
        ),
        tolerance=TOLERANCE,
    )


def _preparation_constants(spec: InputSpec) -> str:
    if spec.takes_pixels:
        return ""
    lines = (
        f"MEAN = np.array({list(spec.mean)}, np.float32)\n"
        f"STD = np.array({list(spec.std)}, np.float32)\n"
    )
    return lines if spec.quantized is None else lines + _scales("INPUT", spec.quantized)


def _preparation(spec: InputSpec) -> str:
    lines = ""
    last = "images" if spec.takes_pixels else "x"
    if not spec.takes_pixels:
        low, high = spec.value_range
        factor = "np.float32(1 / 255)" if high - low == 1 else f"np.float32({high - low} / 255)"
        lines += Template(NORMALISE).substitute(factor=factor, low=f"np.float32({low})")
        if low == 0:
            lines = lines.replace(" + np.float32(0.0)", "")
    if spec.quantized is not None:
        smallest, largest = {"uint8": (0, 255), "int8": (-128, 127), "int16": (-32768, 32767)}[
            spec.dtype
        ]
        lines += Template(TO_INTEGERS).substitute(
            smallest=smallest, largest=largest, dtype=spec.dtype
        )
    if spec.layout == "NCHW":
        return f"{lines}    return np.ascontiguousarray({last}.transpose(0, 3, 1, 2))\n"
    return f"{lines}    return np.ascontiguousarray({last})\n"


def _scales(end: str, quantized: Quantized) -> str:
    return (
        f"{end}_SCALE = np.float32({quantized.scale!r})\n"
        f"{end}_ZERO_POINT = {quantized.zero_point}\n"
    )


def _listed(classes: Sequence[str]) -> str:
    """Write names as a list, a short one on one line."""
    line = repr(list(classes))
    if len(line) < 90:
        return line
    return "[\n" + "".join(f"    {name!r},\n" for name in classes) + "]"
