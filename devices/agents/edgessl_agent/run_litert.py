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
        self.proof = dict(_delegated(self._net), precision=None, threads=plan["threads"])

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


def _delegated(net: Any) -> dict[str, Any]:
    """Return ``providers`` and ``placement``: how many operators each of them runs.

    The list of operators is the only trace that a delegate took any, and not in every version of
    the package. It keeps those that were taken: one runs where an output of the graph needs it and
    no delegate gives the same tensor.
    """
    if not hasattr(net, "_get_ops_details"):
        return {"providers": None}
    told = net._get_ops_details()
    makers: dict[int, dict[str, Any]] = {}
    for op in sorted(told, key=lambda op: op["op_name"] == "DELEGATE"):  # delegates come last
        makers.update((int(tensor), op) for tensor in op["outputs"])
    waiting = [int(entry["index"]) for entry in net.get_output_details()]
    seen, kept = set(waiting), set()
    while waiting:
        maker = makers.get(waiting.pop())
        if maker is None:
            continue
        if maker["op_name"] != "DELEGATE":
            kept.add(maker["index"])
        fresh = {int(tensor) for tensor in maker["inputs"]} - seen
        seen |= fresh
        waiting += fresh
    whole = sum(op["op_name"] != "DELEGATE" for op in told)
    if len(kept) == whole:
        return {"providers": ["builtin"], "placement": None}
    nodes = {"XNNPACK": whole - len(kept), "builtin": len(kept)}
    nodes = {name: n for name, n in nodes.items() if n}
    return {"providers": list(nodes), "placement": {"nodes": nodes, "on_cpu": []}}
