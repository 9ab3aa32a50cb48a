"""OpenVINO with one stream; on x86 it would choose bfloat16 if it were not told f32."""

from __future__ import annotations

import time
from typing import Any

clock = time.monotonic_ns


class OpenVino:
    """One inference request; see :mod:`.runtimes`."""

    def __init__(self, openvino: Any, plan: dict[str, Any]) -> None:
        core = openvino.Core()
        model = core.read_model(plan["model"])
        model.reshape(plan["input"]["shape"])
        config = {"INFERENCE_PRECISION_HINT": plan["precision"], "PERFORMANCE_HINT": "LATENCY"}
        if plan["provider"] == "CPU":
            config.update({"INFERENCE_NUM_THREADS": plan["threads"], "NUM_STREAMS": 1})
        if plan.get("profile"):
            config["PERF_COUNT"] = True
        compiled = core.compile_model(model, plan["provider"], config)
        self._request = compiled.create_infer_request()
        self._input = self._request.get_input_tensor()
        port = compiled.input(0)
        self.name = next(iter(port.get_names()), "")
        self.shape, self.dtype = list(port.get_shape()), str(self._input.data.dtype)
        threads = (
            compiled.get_property("INFERENCE_NUM_THREADS") if "NUM_STREAMS" in config else None
        )
        self.proof = {
            "providers": list(compiled.get_property("EXECUTION_DEVICES")),
            "precision": compiled.get_property("INFERENCE_PRECISION_HINT").to_string(),
            "threads": threads,
        }
        self._profile: list[tuple[str, str, float]] | None = [] if plan.get("profile") else None

    def run(self, x: Any) -> tuple[Any, dict[str, int]]:
        """Return logits (1, C) and nanoseconds by part."""
        begin = clock()
        self._input.data[:] = x
        copied = clock()
        self._request.infer()
        inferred = clock()
        y = self._request.get_output_tensor().data.copy()
        end = clock()
        if self._profile is not None:
            self._profile += [
                (node.node_name, node.node_type, node.real_time.total_seconds() * 1e6)
                for node in self._request.get_profiling_info()
                if node.status == type(node.status).EXECUTED
            ]
        return y, {
            "copy_in": copied - begin,
            "infer": inferred - copied,
            "copy_out": end - inferred,
        }

    def layers(self) -> list[tuple[str, str, float]]:
        """Return (name, operator, microseconds) of every layer of every run so far."""
        return self._profile or []
