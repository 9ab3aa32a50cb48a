"""Our exported files beside the plain path of each toolkit, at the same precision and threads.

Plain path: ``torch.onnx.export`` and onnxruntime's ``quantize_static`` with its defaults;
``openvino.convert_model`` and ``nncf.quantize`` with their defaults; ``litert_torch.convert`` and
ai-edge-quantizer's static recipe with its default calibration. The files of a pair are opened
with the same options (one thread, true float32 where they are float) and timed image by image in
turn, so that a busy machine slows both alike. The net is MobileNetV3-large at 224 px with random
weights: time does not depend on what it has learned.

    python benchmarks/export_speed.py [--pairs 200] [--save]

Prints one JSON document: medians in milliseconds, the median of the paired ratios ours / plain
with a 95 % interval (order statistics), and int8 beside float32 in words; ``--save`` also writes
it to benchmarks/results/export_speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgessl.core.artifact import InputSpec
from edgessl.core.images import to_model_input
from edgessl.core.statistics import percentile_interval
from edgessl.exporters import EXPORTERS
from edgessl.exporters.base import Form, Scheme, Session

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # the plain path imports ONNX Runtime on its own
RESULT = Path(__file__).parent / "results" / "export_speed.json"
SIDE, CALIBRATION, WARM_UP = 224, 32, 10
PACKAGES = (
    "torch", "onnx", "onnxruntime", "openvino", "nncf", "litert-torch", "ai-edge-litert",
    "ai-edge-quantizer",
)  # fmt: skip


def network() -> Any:
    """Return MobileNetV3-large with statistics that fit its weights, so that nothing saturates."""
    import torch
    import torchvision

    torch.manual_seed(0)
    net = torchvision.models.mobilenet_v3_large(num_classes=100)
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        net.train()(torch.randn(8, 3, SIDE, SIDE))
    return net.eval()


def plain_onnx(net: Any, folder: Path, precision: str, images: Any) -> Path:
    """Write the net the usual way."""
    import torch

    path = folder / "plain.onnx"
    torch.onnx.export(net, (torch.zeros(1, 3, SIDE, SIDE),), path, dynamo=True, verbose=False)
    if precision == "none":
        return path
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter(images)

        def get_next(self) -> Any:
            row = next(self.rows, None)
            return None if row is None else {"x": row[None]}

    prepared, quantised = folder / "prepared.onnx", folder / "plain-int8.onnx"
    quant_pre_process(str(path), str(prepared))
    quantize_static(str(prepared), str(quantised), Reader())
    return quantised


def plain_openvino(net: Any, folder: Path, precision: str, images: Any) -> Path:
    """Write the net the usual way."""
    import openvino
    import torch

    model = openvino.convert_model(
        net, example_input=torch.zeros(1, 3, SIDE, SIDE), input=[[1, 3, SIDE, SIDE]]
    )
    if precision == "int8":
        import nncf

        model = nncf.quantize(model, nncf.Dataset([row[None] for row in images]))
    path = folder / "plain.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def plain_tflite(net: Any, folder: Path, precision: str, images: Any) -> Path:
    """Write the net the usual way: NCHW, as ``litert_torch.convert`` does."""
    import litert_torch
    import torch

    path = folder / "plain.tflite"
    litert_torch.convert(net, (torch.zeros(1, 3, SIDE, SIDE),)).export(str(path))
    if precision == "none":
        return path
    from ai_edge_quantizer import quantizer, recipe

    tool = quantizer.Quantizer(str(path))
    tool.load_quantization_recipe(recipe.static_wi8_ai8())
    rows = [{"args_0": np.ascontiguousarray(row[None])} for row in images]
    found = tool.calibrate({"serving_default": rows})
    quantised = folder / "plain-int8.tflite"
    tool.quantize(found, serialize_to_path=str(quantised))
    return quantised


PLAIN: dict[str, Callable[[Any, Path, str, Any], Path]] = {
    "onnx": plain_onnx, "openvino": plain_openvino, "tflite": plain_tflite,
}  # fmt: skip


def open_plain(target: str, path: Path) -> Session:
    """Open a plain file exactly as the exporter of its target opens ours."""
    exporter = EXPORTERS.load(target)()
    folder = path.parent / f"{path.stem}-as-ours"
    folder.mkdir()
    os.link(path, folder / exporter.main_file)
    weights = path.with_suffix(".bin")
    if weights.is_file():
        os.link(weights, folder / "model.bin")
    data = Path(f"{path}.data")
    if data.is_file():
        os.link(data, folder / data.name)
    return exporter.open(folder)


def compared(ours: Session, plain: Session, inputs: tuple[Any, Any], pairs: int) -> dict[str, Any]:
    """Time two sessions in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(WARM_UP + pairs):
        for which in (0, 1) if turn % 2 else (1, 0):
            session, x = (ours, plain)[which], inputs[which][turn % len(inputs[which])][None]
            start = time.perf_counter()
            session.infer(x)
            if turn >= WARM_UP:
                times[which].append(1e3 * (time.perf_counter() - start))
    ratios = [a / b for a, b in zip(*times, strict=True)]
    low, high = percentile_interval(ratios, 0.5) or (None, None)
    return {
        "median_ms": [round(median(t), 3) for t in times],
        "min_ms": [round(min(t), 3) for t in times],
        "ratio": round(median(ratios), 3),
        "ratio_low": None if low is None else round(low, 3),
        "ratio_high": None if high is None else round(high, 3),
    }


def fitted(session: Session, images_NHWC: Any) -> Any:
    """Return normalised images as a session takes them."""
    layout = "NCHW" if session.shape[1] == 3 else "NHWC"
    spec = InputSpec.square(SIDE).with_layout(layout)
    x = to_model_input(images_NHWC, spec)
    if session.dtype == "float32":
        return x
    kind = np.iinfo(session.dtype)  # the plain quantiser made the input integer: any will do
    return np.clip(x * 40, kind.min, kind.max).astype(session.dtype)


def measure(pairs: int) -> dict[str, Any]:
    """Write and time every pair."""
    net, spec = network(), InputSpec.square(SIDE)
    images = np.random.default_rng(0).integers(0, 256, (CALIBRATION, SIDE, SIDE, 3), np.uint8)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for target, plain in PLAIN.items():
            exporter = EXPORTERS.load(target)()
            folder = Path(name) / target
            (folder / "none").mkdir(parents=True)
            (folder / "int8").mkdir()
            written = exporter.write(net, spec, folder / "none", Form())
            inputs = to_model_input(images, written.input)
            exporter.quantize(folder / "none", written, folder / "int8", Scheme("int8"), inputs)
            sessions = {}
            for precision in ("none", "int8"):
                place = folder / f"plain-{precision}"
                place.mkdir()
                path = plain(net, place, precision, to_model_input(images, spec))
                ours, theirs = exporter.open(folder / precision), open_plain(target, path)
                both = (fitted(ours, images), fitted(theirs, images))
                row = {"target": target, "precision": precision, "pair": "ours / plain"}
                rows.append(row | compared(ours, theirs, both, pairs))
                sessions[precision] = ours
                print(json.dumps(rows[-1]), file=sys.stderr)
            both = (fitted(sessions["int8"], images), fitted(sessions["none"], images))
            row = {"target": target, "precision": "int8", "pair": "int8 / float32, both ours"}
            row |= compared(sessions["int8"], sessions["none"], both, pairs)
            slower = row["ratio_low"] is not None and row["ratio_low"] > 1
            row["verdict"] = "int8 is slower here" if slower else "int8 is not slower here"
            rows.append(row)
            print(json.dumps(row), file=sys.stderr)
    return {
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_1min": os.getloadavg()[0],
        "network": f"mobilenet_v3_large, 100 classes, {SIDE} px, batch 1, 1 thread",
        "pairs": pairs,
        "rows": rows,
    }


def main() -> None:
    """Parse the options, measure, print, and save when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200, help="at least 50")
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name} too")
    options = parser.parse_args()
    if options.pairs < 50:
        parser.error(f"a median of {options.pairs} pairs says little; take at least 50")
    text = json.dumps(measure(options.pairs), indent=1)
    print(text)
    if options.save:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()
