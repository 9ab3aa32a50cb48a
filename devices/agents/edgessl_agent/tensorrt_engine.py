"""Building a TensorRT engine on the board from the exported ONNX, and keeping it.

An engine belongs to one model file, precision, TensorRT version and GPU; it is used again only
where all of them and its own hash agree. Precision: from TensorRT 10 on networks are strongly
typed, they compute in the types of the file (float16 and Q/DQ included); before, and where
float16 is asked of a float32 file, builder flags allow it. TensorRT 11 has no such flags any more
(NVIDIA's migration guide from 10.x to 11.x).
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import time
from typing import Any

from .channel import Failed


@functools.lru_cache(maxsize=None)
def logger_of(trt: Any) -> Any:
    """Return the one logger of this process: TensorRT keeps the first it is given for ever."""
    return trt.Logger(trt.Logger.WARNING)


def engine_for(trt: Any, gpu: str, plan: dict[str, Any]) -> dict[str, Any]:
    """Return what the event ``built`` tells; builds only if nothing kept fits.

    Args:
        trt: The module ``tensorrt``.
        gpu: Name and compute capability.
        plan: With ``seal``, ``model``, ``precision`` and ``home``.
    """
    folder = os.path.join(plan.get("home") or plan["work"], "engines")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    precision = plan.get("precision") or "as-exported"
    described = {
        "seal": plan["seal"],
        "precision": precision,
        "version": trt.__version__,
        "gpu": gpu,
    }
    label = "-".join([plan["seal"][:16], precision, trt.__version__, gpu])
    path = os.path.join(folder, re.sub(r"[^A-Za-z0-9._-]+", "_", label) + ".engine")
    timing = re.sub(r"[^A-Za-z0-9._-]+", "_", "timing-%s-%s" % (trt.__version__, gpu)) + ".cache"
    timing = os.path.join(folder, timing)
    kept = _kept(path, described)
    if kept is not None:
        return dict(kept, path=path, timing_cache=timing, reused=True)
    begin = time.monotonic()
    engine, ran = _build(trt, plan, timing)
    record = dict(
        described,
        s=time.monotonic() - begin,
        sha256=hashlib.sha256(engine).hexdigest(),
        computes=ran,
    )
    _write(path, engine)
    _write(path + ".json", json.dumps(record).encode())
    return dict(record, path=path, timing_cache=timing, reused=False)


def _kept(path: str, described: dict[str, Any]) -> dict[str, Any] | None:
    """Return the record beside a kept engine if it is of this model, version and GPU, and whole."""
    try:
        with open(path + ".json", encoding="utf-8") as stream:
            record = json.load(stream)
        with open(path, "rb") as binary:
            found = hashlib.sha256(binary.read()).hexdigest()
    except (OSError, ValueError):
        return None
    same = isinstance(record, dict) and all(record.get(k) == v for k, v in described.items())
    return record if same and record.get("sha256") == found else None


def _build(trt: Any, plan: dict[str, Any], timing_path: str) -> tuple[bytes, str]:
    """Return the serialised engine and the precision that it computes in."""
    builder = trt.Builder(logger_of(trt))
    config = builder.create_builder_config()
    network, parser, computes = _network(trt, builder, config, plan)
    if computes == "f32" and hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)  # its 10 bits would not be float32
    config.set_timing_cache(config.create_timing_cache(_read_bytes(timing_path)), False)
    engine = builder.build_serialized_network(network, config)
    del parser  # the network reads its weights to the end
    if engine is None:
        raise Failed("EngineFailed", "TensorRT %s built no engine; see its lines" % trt.__version__)
    _write(timing_path, bytes(memoryview(config.get_timing_cache().serialize())))
    return bytes(memoryview(engine)), computes


def _network(trt: Any, builder: Any, config: Any, plan: dict[str, Any]) -> tuple[Any, Any, str]:
    """Return the network, its parser, and the precision that it is allowed to compute in."""
    asked, major = plan.get("precision"), int(trt.__version__.split(".")[0])
    flags = trt.NetworkDefinitionCreationFlag
    if major >= 10:
        strong = 1 << int(flags.STRONGLY_TYPED) if major == 10 else 0
        network, parser = _parsed(trt, builder, plan["model"], strong)
        halves, _ = _types_of(trt, network)
        if halves or asked != "f16":
            return network, parser, "f16" if halves else "f32"
        if not hasattr(trt.BuilderFlag, "FP16"):
            text = "TensorRT %s computes in the types of the file: export it with --quantize fp16"
            raise Failed("PrecisionUnavailable", text % trt.__version__)
    explicit = 1 << int(flags.EXPLICIT_BATCH)  # needed by 8, ignored by 10
    network, parser = _parsed(trt, builder, plan["model"], explicit)
    halves, quantised = _types_of(trt, network)
    if quantised:
        config.set_flag(trt.BuilderFlag.INT8)
    if halves or asked == "f16":
        config.set_flag(trt.BuilderFlag.FP16)
        return network, parser, "f16"
    return network, parser, "f32"


def _parsed(trt: Any, builder: Any, path: str, flags: int) -> tuple[Any, Any]:
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger_of(trt))
    with open(path, "rb") as stream:
        if not parser.parse(stream.read()):
            said = [parser.get_error(i).desc() for i in range(parser.num_errors)]
            raise Failed("EngineFailed", "TensorRT cannot read the file: %s" % "; ".join(said))
    return network, parser


def _types_of(trt: Any, network: Any) -> tuple[bool, bool]:
    """Return whether the file has float16 tensors, and whether it has Q/DQ pairs."""
    halves = quantised = False
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        quantised = quantised or layer.type == trt.LayerType.QUANTIZE
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        halves = halves or any(o is not None and o.dtype == trt.float16 for o in outputs)
    return halves, quantised


def _read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return b""


def _write(path: str, data: bytes) -> None:
    """Write a file that is there whole or not at all."""
    part = "%s.%d.part" % (path, os.getpid())
    try:
        with open(part, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.unlink(part)
