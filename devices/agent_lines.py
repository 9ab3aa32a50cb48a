"""Lines from a board, taken as untrusted text: parsed, bounded, checked, or refused in words.

A board can be broken, out of step with its own clock, or hostile. What gets past here has the
types and the order that the rest of the house relies on; no figure is changed and none dropped.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from edgessl.core.errors import EdgeSSLError
from edgessl.devices.base import MAX_LINE
from edgessl.devices.events import Event

MAX_LINES = 500_000
MAX_SAMPLES = 20_000_000
MAX_DEPTH = 8
WHOLE = {"hello", "facts", "loaded", "golden"}  # what every run has told in the end
DISTRUST = "the board's monotonic clock cannot be trusted"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

Check = Callable[[Any], bool]


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


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


_COMPARISON = _with(max_abs=_number, cosine=_number, agreement=_number)
_ANSWERS = _with(
    predicted=_list_of(_count), top5=_list_of(_list_of(_count)), score=_list_of(_number),
    margin=_list_of(_number),
)  # fmt: skip
_COMPARED = _with(agrees=_list_of(_flag), gap=_list_of(_number), cosine=_list_of(_number))
_EXTRA = {"agrees", "gap", "cosine"}
_POLICY = _with(governor=_maybe(_text), max_mhz=_maybe(_number))
# a name that ends in "?" may be missing
FIELDS: Mapping[str, Mapping[str, Check]] = {
    "hello": {
        "proto": _count, "runtime": _text, "python": _maybe(_text), "numpy": _maybe(_text),
    },
    "facts": {
        "board": _maybe(_text), "cpu": _text, "cores": _count, "host_hash": _text,
        "machine?": _text, "policies?": _map_of(_POLICY), "temp_c?": _map_of(_number),
        "emulated?": _flag, "virtual_machine?": _maybe(_text), "l4t?": _maybe(_text),
        "power_supplies?": _map_of(_text), "runtimes?": _map_of(_text),
        "not_observable?": _list_of(_text), "wheels?": _map_of(_maybe(_plain)),
    },
    "tel": {
        "phase": _text, "temp_c": _map_of(_number), "freq_mhz": _map_of(_maybe(_number)),
        "load1": _maybe(_number), "busy_s": _maybe(_number), "own_s": _maybe(_number),
        "wait_s": _maybe(_number),
        "swap_pages": _maybe(_number), "slept_s": _maybe(_number), "helpers_s?": _number,
        "rss_mb": _maybe(_number), "probes": _map_of(_text),
    },
    "idle": {"which": _text, "begin_ns": _count, "end_ns": _count},
    "built": {"path": _text, "sha256": _text, "s": _number, "gpu": _text, "version": _text},
    "loaded": {
        "providers": _maybe(_list_of(_text)), "precision": _maybe(_text),
        "threads": _maybe(_count), "load_ms": _number, "input": _with(name=_text, dtype=_text),
        "placement?": _maybe(_with(nodes=_map_of(_count), on_cpu=_list_of(_text))),
    },
    "golden": {
        "n": _count, "tolerance": _number, "ok": _flag,
        "expected": _COMPARISON, "reference": _COMPARISON,
    },
    "first": {"ms": _number, "model_mb": _maybe(_number)},
    "warmup": {"runs": _count, "s": _number, "done": _flag},
    "lat": {"first": _count, "at_us": _list_of(_whole), "ns": _map_of(_list_of(_whole))},
    "timed": {
        "n": _count, "s": _number, "inputs": _count, "begin_ns": _count, "end_ns": _count,
        "late": _count,
    },
    "sensor": {"at_ns": _list_of(_count), "values": _map_of(_list_of(_maybe(_text)))},
    "layers": {
        "runs": _count,
        "rows": _list_of(_with(name=_text, op=_text, p50=_number, share=_number)),
    },
    "acc": {
        "first": _count,
        "rows": lambda value: _ANSWERS(value) and (_COMPARED(value) or not _EXTRA & set(value)),
    },
    "done": {"max_rss_mb": _maybe(_number)},
    "error": {"type": _text, "msg": _text},
}  # fmt: skip


class Listener:
    """Takes the lines of one process of the agent in order, and says what is wrong with them.

    Args:
        where: How messages call the board.
        answers: Images of the pack, if it answers them and its golden images are right.
    """

    def __init__(self, where: str, answers: int | None = None) -> None:
        self.where, self._expected = where, answers
        self.seen: list[Event] = []
        self._lines = self._samples = self._answers = self._last_us = self._last_ns = 0
        self._columns: dict[str, list[str]] = {}
        self._kinds: set[str] = set()

    def take(self, line: str) -> Event | None:
        """Return the event of a line; None for what a login file or a library printed.

        Raises:
            EdgeSSLError: It is not what the agent says; the message names what was seen.
        """
        self._lines += 1
        if len(line) > MAX_LINE or self._lines > MAX_LINES:
            self._refuse(f"more than {MAX_LINES} lines, or one of more than {MAX_LINE >> 20} MiB")
        event = self._parsed(line)
        if event is None:
            return None
        kind = event["k"]
        if not _number(event.get("t", None if kind in FIELDS else 0)):
            self._refuse(f"'{kind}' at the moment {event.get('t')!r:.40}")
        for field, check in FIELDS.get(kind, {}).items():
            name = field.removesuffix("?")
            if name in event and not check(event[name]):
                self._refuse(f"'{kind}' whose '{name}' is {event[name]!r:.80}")
            if name not in event and name == field:
                self._refuse(f"'{kind}' without '{name}'")
        self._in_order(event)
        self.seen.append(event)
        self._kinds.add(kind)
        return event

    def _parsed(self, line: str) -> Event | None:
        if '"k"' not in line:
            return None
        try:
            event = json.loads(line, parse_constant=self._refuse)
        except (ValueError, RecursionError):
            return None
        if not isinstance(event, dict) or not isinstance(event.get("k"), str):
            return None
        return {name: self._clean(value, MAX_DEPTH) for name, value in event.items()}

    def _clean(self, value: Any, depth: int) -> Any:
        """Return the value without control characters; a number must be finite."""
        if isinstance(value, str):
            return CONTROL.sub("", value)
        if isinstance(value, float) and not math.isfinite(value):
            self._refuse(f"the number {value}")
        if depth == 0:
            self._refuse(f"something nested deeper than {MAX_DEPTH}")
        if isinstance(value, list):
            return [self._clean(item, depth - 1) for item in value]
        if isinstance(value, dict):
            return {CONTROL.sub("", n): self._clean(v, depth - 1) for n, v in value.items()}
        return value

    def _in_order(self, event: Event) -> None:
        kind, kinds = event["k"], self._kinds
        if kind == "done":
            self._check_whole()
        before = {"golden": "loaded", "lat": "golden", "timed": "golden", "acc": "timed",
                  "loaded": "facts"}.get(kind)  # fmt: skip
        if before is not None and before not in kinds:
            self._refuse(f"'{kind}' before '{before}'")
        if "done" in kinds and kind in FIELDS:
            self._refuse(f"'{kind}' after 'done'")
        if kind in ("hello", "facts", "loaded", "golden", "timed") and kind in kinds:
            self._refuse(f"'{kind}' twice")
        if "begin_ns" in event:
            self._check_clock([event["begin_ns"], event["end_ns"]])
        if kind == "lat":
            self._check_samples(event)
        elif kind == "timed" and event["n"] != self._samples:
            self._refuse(f"{self._samples} samples and then 'n': {event['n']}")
        elif kind == "sensor":
            self._check_lengths("sensor", [event["at_ns"], *event["values"].values()])
            self._check_clock([self._last_ns, *event["at_ns"]])
            self._last_ns = event["at_ns"][-1] if event["at_ns"] else self._last_ns
        elif kind == "acc":
            if event["first"] != self._answers:
                self._refuse(f"answers from {event['first']} on, {self._answers} were there")
            self._check_lengths("acc", list(event["rows"].values()))
            self._same_columns(event["rows"])
            self._answers += len(event["rows"]["predicted"])

    def _check_whole(self) -> None:
        if missing := WHOLE - self._kinds:
            self._refuse(f"'done' without {sorted(missing)}")
        wanted = self._answers if self._expected is None else self._expected
        if "timed" in self._kinds and self._answers != wanted:
            self._refuse(f"{self._answers} answers to {wanted} images")

    def _check_samples(self, event: Event) -> None:
        at_us, parts = event["at_us"], event["ns"]
        if event["first"] != self._samples:
            self._refuse(f"samples from {event['first']} on, {self._samples} were there")
        if not {"infer", "e2e_from_uint8"} <= set(parts):
            self._refuse(f"samples of {sorted(parts)}, 'infer' and 'e2e_from_uint8' are needed")
        self._same_columns(parts)
        self._check_lengths("lat", [at_us, *parts.values()])
        inside = [values for name, values in parts.items() if name != "e2e_from_uint8"]
        for moment, whole, *pieces in zip(at_us, parts["e2e_from_uint8"], *inside, strict=True):
            # moments are cut to whole microseconds
            if moment + 1 < self._last_us or min(pieces) < 0 or sum(pieces) > whole:
                self._refuse(
                    f"sample {self._samples} begins {moment} us after the first and takes {whole} "
                    f"ns, the one before ended at {self._last_us} us; {DISTRUST}"
                )
            self._last_us = moment + whole // 1000
            self._samples += 1
        if self._samples > MAX_SAMPLES:
            self._refuse(f"more than {MAX_SAMPLES} samples")

    def _same_columns(self, columns: Mapping[str, list[Any]]) -> None:
        kind, names = ("lat" if "infer" in columns else "acc"), sorted(columns)
        if self._columns.setdefault(kind, names) != names:
            self._refuse(f"'{kind}' with {names} after {self._columns[kind]}")

    def _check_clock(self, moments: list[int]) -> None:
        if moments != sorted(moments):
            self._refuse(f"moments of {moments[0]} ns and later, out of order; {DISTRUST}")

    def _check_lengths(self, kind: str, columns: list[list[Any]]) -> None:
        lengths = sorted({len(column) for column in columns})
        if len(lengths) != 1:
            self._refuse(f"'{kind}' with columns of {lengths} rows")

    def _refuse(self, what: str) -> NoReturn:
        raise EdgeSSLError(
            f"the agent on {self.where} said what it cannot have: {what}",
            hint="the board or the connection damages what it sends, or something else answers "
            "for the agent; bench again",
        )


def printable(text: str, limit: int = 2000) -> str:
    """Return text of a board as it can be shown: without control characters, bounded."""
    return CONTROL.sub("", text)[-limit:]
