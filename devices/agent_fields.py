"""What an agent says, field by field: the types of every value that the house reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], bool]


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def is_number(value: Any) -> bool:
    """Whether it is a number that arithmetic can bear; 1e30 is what the agent calls broken."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _digits(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{6}", value) is not None


def _plain(value: Any) -> bool:
    return _text(value) or is_number(value)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _maybe(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _map_of(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _with(**fields: Check) -> Check:
    return lambda value: (
        isinstance(value, dict) and all(n in value and c(value[n]) for n, c in fields.items())
    )


def _may_have(**fields: Check) -> Check:
    return lambda value: (
        isinstance(value, dict) and all(c(value[n]) for n, c in fields.items() if n in value)
    )


def _both(first: Check, second: Check) -> Check:
    return lambda value: first(value) and second(value)


_COMPARISON = _with(max_abs=is_number, cosine=is_number, agreement=is_number)
_ANSWERS = _with(
    predicted=_list_of(_count), top5=_list_of(_list_of(_count)), score=_list_of(is_number),
    margin=_list_of(is_number),
)  # fmt: skip
_COMPARED = _with(agrees=_list_of(_flag), gap=_list_of(is_number), cosine=_list_of(is_number))
_EXTRA = {"agrees", "gap", "cosine"}
_MHZ = _maybe(is_number)
_POLICY = _both(
    _with(governor=_maybe(_text), max_mhz=_MHZ),
    _may_have(cores=_maybe(_text), cur_mhz=_MHZ, min_mhz=_MHZ, hardware_max_mhz=_MHZ),
)
_OPENED = _may_have(version=_text, providers=_list_of(_text), error=_text)
# a name that ends in "?" may be missing
FIELDS: Mapping[str, Mapping[str, Check]] = {
    "hello": {
        "proto": _count, "runtime": _text, "python": _maybe(_text), "numpy": _maybe(_text),
    },
    "facts": {
        "board": _maybe(_text), "cpu": _text, "cores": _count, "host_hash": _digits,
        "product?": _maybe(_text), "compatible?": _list_of(_text), "l4t?": _maybe(_text),
        "machine?": _text, "affinity?": _maybe(_list_of(_count)), "policies?": _map_of(_POLICY),
        "clusters?": _list_of(_may_have(cores=_maybe(_text), max_mhz=_MHZ)),
        "temp_c?": _map_of(is_number), "fans?": _map_of(is_number),
        "memory_mb?": _map_of(is_number), "disk_free_mb?": _maybe(is_number),
        "load?": _list_of(is_number), "uptime_s?": is_number, "os?": _text, "kernel?": _text,
        "libc?": _text, "python?": _text, "wheels?": _map_of(_maybe(_plain)),
        "virtual_machine?": _maybe(_text), "emulated?": _flag, "emulator?": _maybe(_text),
        "power_supplies?": _map_of(_text), "runtimes?": _map_of(_text),
        "providers?": _list_of(_text), "opened?": _map_of(_OPENED),
        "not_observable?": _list_of(_text), "android?": _map_of(_text),
        "browser?": _text, "secure_context?": _flag, "cross_origin_isolated?": _flag,
    },
    "tel": {
        "phase": _text, "temp_c": _map_of(is_number), "freq_mhz": _map_of(_maybe(is_number)),
        "load1": _maybe(is_number), "busy_s": _maybe(is_number), "own_s": _maybe(is_number),
        "wait_s": _maybe(is_number),
        "swap_pages": _maybe(is_number), "slept_s": _maybe(is_number), "helpers_s?": is_number,
        "rss_mb": _maybe(is_number), "probes": _map_of(_text),
    },
    "idle": {"which": _text, "begin_ns": _count, "end_ns": _count},
    "building": {"runtime": _text},
    "plan": {"threads": _count},
    "built": {
        "path": _text, "sha256": _text, "s": is_number, "gpu": _text, "version": _text,
        "reused?": _flag, "timing_cache?": _text,
    },
    "loaded": {
        "providers": _maybe(_list_of(_text)), "precision": _maybe(_text),
        "threads": _maybe(_count), "load_ms": is_number, "input": _with(name=_text, dtype=_text),
        "placement?": _maybe(_with(nodes=_map_of(_count), on_cpu=_list_of(_text))),
    },
    "golden": {
        "n": _count, "tolerance": is_number, "ok": _flag,
        "expected": _COMPARISON, "reference": _COMPARISON,
    },
    "first": {"ms": is_number, "model_mb": _maybe(is_number)},
    "warmup": {
        "runs": _count, "s": is_number, "done": _flag, "settled?": _maybe(_flag),
    },
    "lat": {"first": _count, "at_us": _list_of(_whole), "ns": _map_of(_list_of(_whole))},
    "timed": {
        "n": _count, "s": is_number, "inputs": _count, "begin_ns": _count, "end_ns": _count,
        "late": _count,
    },
    "sensor": {"at_ns": _list_of(_count), "values": _map_of(_list_of(_maybe(_text)))},
    "layers": {
        "runs": _count, "unit?": _text, "note?": _text,
        "rows": _list_of(_with(name=_text, op=_text, p50=is_number, share=is_number)),
    },
    "acc": {
        "first": _count,
        "rows": lambda value: _ANSWERS(value) and (_COMPARED(value) or not _EXTRA & set(value)),
    },
    "done": {"max_rss_mb": _maybe(is_number)},
    "error": {"type": _text, "msg": _text},
}  # fmt: skip


# kinds whose texts are what a program printed; by the field that has them
PRINTED = {"tel": "probes", "sensor": "values"}
