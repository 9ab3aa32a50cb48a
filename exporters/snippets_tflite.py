"""The script that is written beside a LiteRT file: its contract as code that a product can copy."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

import numpy as np

from edgessl.core.artifact import InputSpec, Quantized
from edgessl.exporters.base import Written

SCRIPT = Template('''\
"""Run $file with LiteRT (or tflite-runtime, on older boards) and numpy.

python example.py                  compare with golden.npz; exit code 1 when the logits differ
python example.py image.npy ...    the class of images: RGB, uint8, ($height, $width, 3)
$fitting"""

import sys
from pathlib import Path

import numpy as np

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tflite_runtime.interpreter import Interpreter

HERE = Path(__file__).resolve().parent
CLASSES = $classes
$constants

def prepare(image):
    """Turn an RGB image, uint8 ($height, $width, 3), into what the model takes."""
    if image.dtype != np.uint8 or image.shape != ($height, $width, 3):
        raise SystemExit(f"want uint8 ($height, $width, 3), got {image.dtype} {image.shape}")
$prepare

def load():
    interpreter = Interpreter(model_path=str(HERE / "$file"), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def run(interpreter, image):
    """Return the logits of an RGB image, uint8 ($height, $width, 3): float32 (classes,)."""
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], prepare(image))
    interpreter.invoke()
    output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
$logits

def answer(logits):
    best = int(logits.argmax())
    return CLASSES[best] if best < len(CLASSES) else f"class {best}"


def tolerance(interpreter):
    """Return how far logits may be from where the file was made, relative to the largest one.

    Kernels of different processors round 8-bit sums differently; float sums hardly differ.
    """
    types = [tensor["dtype"] for tensor in interpreter.get_tensor_details()]
    return 0.01 if np.int16 in types else 0.1 if np.int8 in types else 0.001


def check(interpreter):
    """Return 0 when the model gives here what it gave where it was made, else 1."""
    golden = np.load(HERE / "golden.npz", allow_pickle=False)
    expected, allowed = golden["expected"], tolerance(interpreter)
    logits = np.array([run(interpreter, image) for image in golden["images"]])
    for number, row in enumerate(logits):
        print(f"golden image {number}: {answer(row)}")
    difference = np.abs(logits - expected).max() / np.abs(expected).max()
    same = bool(difference <= allowed)
    print(
        f"largest difference: {difference:.2g} of the largest logit, allowed {allowed:g}: "
        f"{'ok' if same else 'WRONG'}"
    )
    return 0 if same else 1


if __name__ == "__main__":
    model = load()
    for path in sys.argv[1:]:
        print(f"{path}: {answer(run(model, np.load(path, allow_pickle=False)))}")
    sys.exit(0 if len(sys.argv) > 1 else check(model))
''')

FITTING = Template("""
Images of other sizes: turn them upright, resize the short side to $resize pixels as Pillow's
BILINEAR does (it antialiases; OpenCV's does not), then cut $height x $width from the centre.
""")


def script(written: Written, classes: Sequence[str]) -> str:
    """Return the text of ``example.py``, in the syntax of Python 3.8.

    Args:
        written: Of a LiteRT file.
        classes: Names in the order of the logits; may be empty.
    """
    spec, output = written.input, written.output
    height, width = spec.side
    sizes = {"height": height, "width": width, "resize": spec.resize}
    constants, logits = _preparation_constants(spec), "    return output\n"
    if output.quantized is not None:
        constants += _scales("OUTPUT", output.quantized)
        logits = "    return (output.astype(np.float32) - OUTPUT_ZERO_POINT) * OUTPUT_SCALE\n"
    return SCRIPT.substitute(
        sizes,
        file=written.files[0],
        fitting="" if spec.raw else FITTING.substitute(sizes),
        classes=_listed(classes),
        constants=constants,
        prepare=_preparation(spec),
        logits=logits,
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
    """Return the lines of ``prepare``: the arithmetic of ``to_model_input``, in its order."""
    if spec.takes_pixels:
        return "    return image[None]\n"
    low, high = spec.value_range
    factor = f"np.float32({high - low:g} / 255)"
    shift = f" + np.float32({low})" if low else ""
    lines = (
        f"    x = image.astype(np.float32) * {factor}{shift}\n"
        "    x = (x - MEAN) / STD\n"
    )  # fmt: skip
    if spec.quantized is None:
        return lines + "    return x[None]\n"
    kind = np.iinfo(spec.dtype)
    return lines + (
        "    x = np.rint(x / INPUT_SCALE) + INPUT_ZERO_POINT\n"
        f"    return x.clip({kind.min}, {kind.max}).astype(np.{spec.dtype})[None]\n"
    )


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
