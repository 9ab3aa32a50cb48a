"""ONNX Runtime with any execution provider; its copies are inside ``run`` and not separated.

Providers other than the CPU's are opened twice: the first session builds what they keep, and its
profile tells which provider took each node, because ONNX Runtime falls back without a word.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import time
import warnings
from collections import Counter
from typing import Any

clock = time.monotonic_ns
CPU, XNNPACK = "CPUExecutionProvider", "XnnpackExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
TYPES = {"float": "float32", "float16": "float16", "double": "float64"}


class OnnxRuntime:
    """One session; see :mod:`.runtimes`."""

    def __init__(self, ort: Any, plan: dict[str, Any]) -> None:
        self._session = open_session(ort, plan, profile=bool(plan.get("profile")))
        entry = self._session.get_inputs()[0]
        self.name, self.shape = entry.name, list(entry.shape)
        element = entry.type.replace("tensor(", "").replace(")", "")
        self.dtype = TYPES.get(element, element)
        own_threads = plan["provider"] == XNNPACK
        threads = self._session.get_session_options().intra_op_num_threads
        self.proof = {
            "providers": self._session.get_providers(),
            "precision": None,
            "threads": plan["threads"] if own_threads else threads,
        }

    @classmethod
    def prepare(cls, ort: Any, plan: dict[str, Any]) -> dict[str, Any]:
        """Build what the provider keeps on the board, and count the nodes that each one took.

        Returns:
            ``built`` for the event of that name, and ``placement``: nodes by provider, with the
            names of up to ten that fell back to the CPU.
        """
        if plan["provider"] == CPU:
            return {}
        import numpy as np

        begin, before = clock(), _engine_of(ort, plan)
        session = open_session(ort, plan, profile=True)
        entry = session.get_inputs()[0]
        kind = TYPES.get(entry.type[7:-1], entry.type[7:-1])
        session.run(None, {entry.name: np.zeros(plan["input"]["shape"], kind)})
        seconds = (clock() - begin) / 1e9
        nodes = kernel_times(session.end_profiling())
        taken = {(index, name): provider for index, name, _, provider, _ in nodes}
        placement = {
            "nodes": dict(Counter(taken.values())),
            "on_cpu": [name for (_, name), provider in taken.items() if provider == CPU][:10],
        }
        engine = _engine_of(ort, plan)
        told = {"s": seconds, "gpu": "", "version": ort.__version__}
        built = dict(told, reused=bool(engine["sha256"]) and engine == before, **engine)
        return {"built": built, "placement": placement}

    def run(self, x: Any) -> tuple[Any, dict[str, int]]:
        """Return logits (1, C) and nanoseconds by part."""
        begin = clock()
        y = self._session.run(None, {self.name: x})[0]
        return y, {"infer": clock() - begin}

    def layers(self) -> list[tuple[str, str, float]]:
        """Return (name, operator, microseconds) of every layer of every run so far."""
        nodes = kernel_times(self._session.end_profiling())
        return [(name, operator, us) for _, name, operator, _, us in nodes]


def open_session(ort: Any, plan: dict[str, Any], *, profile: bool) -> Any:
    """Open the model for one stream of single images."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = plan["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if plan["provider"] == XNNPACK:
        # it has threads of its own; those of the session would spin beside them
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(plan["work"], "onnxruntime")
    with warnings.catch_warnings():  # an absent provider is reported through the proof
        warnings.simplefilter("ignore")
        return ort.InferenceSession(
            plan["model"], options, providers=providers(ort, plan), enable_fallback=0
        )


def providers(ort: Any, plan: dict[str, Any]) -> list[Any]:
    """Return the provider that is asked for with its options, and those it may hand nodes to."""
    asked = plan["provider"]
    if asked == XNNPACK:
        return [(asked, {"intra_op_num_threads": str(plan["threads"])}), CPU]
    if asked == TENSORRT:
        options = {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": own_folder(ort, plan),
            "trt_timing_cache_enable": True,
            "trt_fp16_enable": plan["precision"] == "f16",
        }
        if _version(ort) >= (1, 17):  # before, the timing cache lay beside the engine
            options["trt_timing_cache_path"] = engine_folder(plan)
        return [(asked, options), "CUDAExecutionProvider", CPU]
    return [asked] if asked == CPU else [asked, CPU]


def engine_folder(plan: dict[str, Any]) -> str:
    """Return the folder that keeps engines, made if needed."""
    folder = os.path.join(plan.get("home") or plan["work"], "engines")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder


def own_folder(ort: Any, plan: dict[str, Any]) -> str:
    """Return the folder of the engines of one model, made if needed.

    ONNX Runtime asks neither of which model nor of which version an engine in its folder is.
    """
    label = "-".join([plan["seal"][:16], plan["precision"] or "as-exported", ort.__version__])
    folder = os.path.join(engine_folder(plan), "onnxruntime-" + label)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder


def _engine_of(ort: Any, plan: dict[str, Any]) -> dict[str, str]:
    """Return ``path``, ``sha256`` and ``timing_cache`` of the engine that the provider keeps.

    A model in several pieces has several engines: then their folder, without a hash.
    """
    if plan["provider"] != TENSORRT:
        return {"path": "", "sha256": "", "timing_cache": ""}
    folder = own_folder(ort, plan)
    engines = glob.glob(os.path.join(glob.escape(folder), "*.engine"))
    caches = glob.glob(os.path.join(glob.escape(engine_folder(plan)), "*.timing"))
    cache = max(caches, key=os.path.getmtime) if caches else ""
    if len(engines) != 1:
        return {"path": folder, "sha256": "", "timing_cache": cache}
    with open(engines[0], "rb") as stream:
        found = hashlib.sha256(stream.read()).hexdigest()
    return {"path": engines[0], "sha256": found, "timing_cache": cache}


def kernel_times(path: str) -> list[tuple[str, str, str, str, float]]:
    """Read a profile: (index, name, operator, provider, microseconds) of each run of each node."""
    with open(path, encoding="utf-8") as stream:
        events = json.load(stream)
    with contextlib.suppress(OSError):
        os.unlink(path)
    found, ending = [], "_kernel_time"
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith(ending):
            said = event.get("args", {})
            row = (said.get("node_index", ""), name[: -len(ending)], said.get("op_name", ""))
            found.append((*row, said.get("provider", ""), float(event["dur"])))
    return found


def _version(ort: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in ort.__version__.split(".")[:2])
