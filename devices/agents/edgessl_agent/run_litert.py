"""LiteRT (or tflite-runtime); its CPU path is the XNNPACK delegate."""

from __future__ import annotations

import time
from typing import Any

clock = time.monotonic_ns


class LiteRt:
    """One interpreter; see :mod:`.runtimes`."""

    def __init__(self, module: Any, plan: dict[str, Any]) -> None:
        extra = {}
        if plan["provider"] == "builtin":
            kind = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            extra["experimental_op_resolver_type"] = kind
        self._net = module.Interpreter(plan["model"], num_threads=plan["threads"], **extra)
        self._net.allocate_tensors()
        entry, self._out = self._net.get_input_details()[0], self._net.get_output_details()[0]
        self._in = entry["index"]
        self.name, self.shape = entry["name"], [int(n) for n in entry["shape"]]
        self.dtype = entry["dtype"].__name__
        # the only trace that a delegate took the graph; not in every version of the package
        details = getattr(self._net, "_get_ops_details", None)
        providers = None
        if details is not None:
            delegated = any(op["op_name"] == "DELEGATE" for op in details())
            providers = ["XNNPACK"] if delegated else ["builtin"]
        self.proof = {"providers": providers, "precision": None, "threads": plan["threads"]}

    def run(self, x: Any) -> tuple[Any, dict[str, int]]:
        """Return logits (1, C) and nanoseconds by part."""
        begin = clock()
        self._net.set_tensor(self._in, x)
        copied = clock()
        self._net.invoke()
        inferred = clock()
        y = self._net.get_tensor(self._out["index"])
        end = clock()
        return y, {
            "copy_in": copied - begin,
            "infer": inferred - copied,
            "copy_out": end - inferred,
        }

    def layers(self) -> str:
        """Say why there is no table (looked up in ai-edge-litert 2.3.0 and tflite-runtime 2.14)."""
        return "the Python packages of LiteRT time whole inferences only, not layers"
