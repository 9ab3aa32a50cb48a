"""A run folder with quantised exports of every outcome, and the records beside them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from report_runs import artifact_in, bench
from report_study import NAMES, TEST, parity, study_run

from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.ledger import Ledger, LedgerRow
from edgessl.core.statistics import paired_difference, wilson

FLOAT_BYTES = 40_000
SEEN = {"name": "test", "n": TEST, "labelled": TEST}
UNSEEN = {"name": "unlabeled", "n": 500, "labelled": 0}


def gate(seal: str, outcome: str, **changes: Any) -> dict[str, Any]:
    """Body of a gate.json: eight flips of 2,000, three gained and five lost."""
    body = {
        "seal": seal, "outcome": outcome, "n": TEST, "labelled": TEST, "flips": 8,
        "unlabelled_flips": 0, "gained": 3, "lost": 5, "drop": 0.001, "drop_low": -0.0013,
        "drop_high": 0.0034, "shift": 0.004, "shift_low": 0.003, "shift_high": 0.005,
        "needed": None, "to_label": 0, "reasons": [],
        "bounds": {"max_drop": 0.01, "confidence": 0.95, "max_shift": 0.05},
        "images": [SEEN], "trained_on": False,
    }  # fmt: skip
    return body | changes


def candidate(name: str, precision: str = "int8", **changes: Any) -> dict[str, Any]:
    """One entry of search.json."""
    body = {
        "name": name,
        "scheme": {
            "precision": precision, "calibration": "minmax", "float_layers": [],
            "integer_io": False,
        },
        "calibration_images": 256, "aware": False, "n": 600, "agreement": 0.995, "kl": 0.0011,
        "shift": 0.004, "snr_db": 28.2, "bytes": 11_000, "ms": 0.5, "ratio": 0.51,
        "holds": True, "pointless": False, "seconds": 2.6, "error": None,
    }  # fmt: skip
    scheme = body["scheme"] | changes.pop("scheme", {})
    return body | changes | {"scheme": scheme}


def search(seal: str, chosen: str, *candidates: dict[str, Any]) -> dict[str, Any]:
    """Body of a search.json."""
    return {
        "seal": seal, "asked": "int8", "chosen": chosen,
        "selection": {"n": 600, "labelled": 600},
        "float": {"bytes": FLOAT_BYTES, "ms": 0.98}, "candidates": list(candidates),
    }  # fmt: skip


def sensitivity(seal: str, layers: int = 52) -> dict[str, Any]:
    """Body of a sensitivity.json: the first layer and a few depthwise ones suffer."""
    rng = random.Random(layers)
    rows = []
    for index in range(layers):
        block, part = divmod(index - 1, 3)
        module = "features.0.0" if index == 0 else f"features.{block + 1}.conv.{part}.0"
        last = index == layers - 1
        bad = 14 if index in (0, 7, 8, 31) else 0
        alone = 46 - bad + rng.gauss(0, 3)
        rows.append(
            {
                "module": "classifier.1" if last else module,
                "op": "linear" if last else "conv",
                "file_snr_db": None if index % 11 == 5 else 34 - 14 * index / layers - bad / 3,
                "alone_snr_db": alone,
                "alone_kl": 10 ** (-alone / 10),
                "alone_agreement": 1 - 10 ** (-alone / 20) / 2,
            }
        )
    return {"seal": seal, "images": 256, "layers": rows}


def resizes() -> dict[str, Any]:
    """Body of a resizes.json."""
    rows = [("PIL bilinear, antialiased", 1.0, 0.776, None)]
    rows += [
        ("OpenCV linear, not antialiased", 0.962, 0.764, -0.012),
        ("torch bilinear without antialias", 0.9625, 0.7635, -0.0125),
        ("nearest", 0.911, 0.7315, -0.0445),
        ("stretched instead of cropped", 0.874, 0.706, -0.07),
    ]
    return {
        "source_seal": "5" * 64, "n": TEST,
        "rows": [
            {
                "name": name, "agreement": agreement, "top1": top1, "delta": delta,
                "delta_low": None if delta is None else delta - 0.008,
                "delta_high": None if delta is None else delta + 0.008,
            }
            for name, agreement, top1, delta in rows
        ],
    }  # fmt: skip


def write(folder: Path, name: str, kind: str, body: dict[str, Any]) -> None:
    files.write_json(folder / name, kind, body)


def export(run: Path, name: str, size: int, parents: tuple[str, ...] = ()) -> str:
    """Write a sealed file as ``export/NAME``; return its seal."""
    width, target, precision = name.split("-")
    made = artifact_in(
        run / "export" / name, "export", target, size, parents, imgsz=28, labels=NAMES,
        architecture="mobilenet_v2", width=float(width[:-1]), quantize=precision,
    )  # fmt: skip
    return made.seal


def export_run(folder: Path, samples: int = 300) -> Path:
    """Write a study whose widest net was asked for in int8, for four targets."""
    study_run(folder, ("1x",), samples=samples)
    _passed(folder, samples)
    _inconclusive(folder, samples)
    _fallback(folder)
    _failed(folder)
    write(folder, "resizes.json", "preprocessing-costs", resizes())
    return folder


def _passed(run: Path, samples: int) -> None:
    """OpenVINO: the first try holds; layers were analysed, and a board has timed it."""
    seal = export(run, "1x-openvino-int8", 11_200)
    place = run / "export" / "1x-openvino-int8"
    write(place, "gate.json", "gate", gate(seal, "PASS"))
    tried = candidate("int8, minmax")
    write(place, "search.json", "quantization-search", search(seal, "int8, minmax", tried))
    write(place, "sensitivity.json", "sensitivity", sensitivity(seal))
    _rows(run, "1x-openvino-int8", seal, 3, 5)
    _bench(run, "openvino", 4.1, samples)


def _inconclusive(run: Path, samples: int) -> None:
    """ONNX: 35 images cannot decide; two pictures wait for labels."""
    seal = export(run, "1x-onnx-int8", 11_000)
    place = run / "export" / "1x-onnx-int8"
    body = gate(
        seal, "INCONCLUSIVE", n=35, labelled=20, flips=3, unlabelled_flips=2, gained=0, lost=1,
        drop=None, drop_low=None, drop_high=0.2098, shift=-0.012, shift_low=-0.03,
        shift_high=0.006, needed=1150, to_label=2, images=[{**SEEN, "n": 20, "labelled": 20},
        {**UNSEEN, "n": 15}],
        reasons=["3 of 35 answers flipped: a drop of up to 21.0 points cannot be ruled out"],
    )  # fmt: skip
    write(place, "gate.json", "gate", body)
    worse = {"holds": False, "agreement": 0.981}
    tried = (
        candidate("int8, minmax", **worse, kl=0.047),
        candidate("int8, percentile", scheme={"calibration": "percentile"}, kl=0.026),
    )
    write(place, "search.json", "quantization-search", search(seal, "int8, percentile", *tried))
    _rows(run, "1x-onnx-int8", seal, 0, 1)
    _bench(run, "onnx", 2.2, samples)  # the fastest of all, and not proven


def _fallback(run: Path) -> None:
    """TFLite: int8 breaks, w8a16 holds, and is slower than float32."""
    seal = export(run, "1x-tflite-int8", 11_400)
    place = run / "export" / "1x-tflite-int8"
    write(place, "gate.json", "gate", gate(seal, "PASS", flips=2, gained=1, lost=1, drop=0.0))
    none = dict.fromkeys(("n", "agreement", "kl", "shift", "snr_db", "bytes", "ms", "ratio"))
    tried = (
        candidate("int8, minmax", holds=False, agreement=0.902, kl=0.049, snr_db=11.8),
        candidate("int8, percentile", scheme={"calibration": "percentile"}, holds=False, **none,
                  error="the quantiser ended with signal 11 (SIGSEGV)"),
        candidate("int8, minmax, 3 sensitive layers in float", holds=False, agreement=0.971,
                  scheme={"float_layers": ["features.0.0", "features.3.conv.1.0",
                                           "features.3.conv.2.0"]}),
        candidate("int8, minmax, quantisation-aware", aware=True, holds=False, agreement=0.968),
        candidate("w8a16", "w8a16", agreement=0.999, kl=0.0002, snr_db=35.1, ms=1.76, ratio=1.8),
    )  # fmt: skip
    write(place, "search.json", "quantization-search", search(seal, "w8a16", *tried))
    _rows(run, "1x-tflite-int8", seal, 1, 1)


def _failed(run: Path) -> None:
    """TensorRT: nothing holds, and nothing can be timed on this processor."""
    sibling = export(run, "1x-tensorrt-none", FLOAT_BYTES)
    parity(run / "export" / "1x-tensorrt-none", sibling)
    ledger = Ledger.open(run)
    (row,) = ledger.find(id="export/1x-onnx-none")
    own = {"id": "export/1x-tensorrt-none", "target": "tensorrt", "artifact_sha256": sibling}
    ledger.put([row.model_copy(update=own)])
    seal = export(run, "1x-tensorrt-int8", 12_000)
    place = run / "export" / "1x-tensorrt-int8"
    body = gate(
        seal, "FAIL", flips=190, gained=20, lost=130, drop=0.055, drop_low=0.046, drop_high=0.064,
        shift=0.061, shift_low=0.058, shift_high=0.064,
        reasons=["top-1 falls by at least 4.6 points, 1.0 are allowed",
                 "the mean confidence moves by 6.1 points, 5.0 are allowed"],
    )  # fmt: skip
    write(place, "gate.json", "gate", body)
    tried = candidate("int8, minmax", holds=False, agreement=0.905, ms=None, ratio=None)
    write(place, "search.json", "quantization-search", search(seal, "int8, minmax", tried))
    _rows(run, "1x-tensorrt-int8", seal, 20, 130)


def _rows(run: Path, name: str, seal: str, gained: int, lost: int) -> None:
    """Put top-1 and agreement of a quantised file into the ledger, compared with its sibling."""
    ledger = Ledger.open(run)
    (net,) = ledger.find(id="extract/1x")
    common = net.model_dump(
        include={"variant", "metric", "split", "width", "labels_per_class", "data_sha256", "n",
                 "draw"}
    )  # fmt: skip
    _, target, precision = name.split("-")
    common |= {
        "stage": "export", "target": target, "quantize": precision, "artifact_sha256": seal,
    }  # fmt: skip
    low, high = paired_difference(gained, lost, TEST)
    right = round(net.value * TEST) + gained - lost
    bounds = dict(zip(("ci_low", "ci_high"), wilson(right, TEST), strict=True))
    sibling = f"export/1x-{target}-none"
    agree = TEST - gained - lost
    reach = dict(zip(("ci_low", "ci_high"), wilson(agree, TEST), strict=True))
    ledger.put(
        [
            LedgerRow(
                id=f"export/{name}", parents=(sibling,), compared_with=sibling,
                value=right / TEST, delta=(gained - lost) / TEST, delta_low=low, delta_high=high,
                **bounds, **common,
            ),
            LedgerRow(
                id=f"export/{name}/agreement", value=agree / TEST, **reach,
                **(common | {"metric": "agreement"}),
            ),
        ]
    )  # fmt: skip


def _bench(run: Path, target: str, median: float, samples: int) -> None:
    bench(
        run, Artifact.load(run / "export" / f"1x-{target}-int8"), device="pi5",
        runtime=f"{target}-int8", target=target, median=median, samples=samples, top1=0.774,
        n=TEST,
    )  # fmt: skip
