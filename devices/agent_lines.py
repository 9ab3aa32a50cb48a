"""Lines from a board, taken as untrusted text: parsed, bounded, checked, or refused in words.

A board can be broken, out of step with its own clock, or hostile. What gets past here has the
types and the order that the rest of the house relies on; no figure is changed and none dropped.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from edgessl.core.errors import EdgeSSLError
from edgessl.devices.agent_fields import FIELDS, PRINTED, is_number
from edgessl.devices.base import MAX_LINE
from edgessl.devices.events import Event

MAX_LINES = 500_000
MAX_SAMPLES = 20_000_000
MAX_TRANSCRIPT = 512 << 20  # characters: ten minutes of a model that takes 0.1 ms are 300 million
MAX_DEPTH = 8
WHOLE = {"hello", "facts", "loaded", "golden"}  # what every run has told in the end
DISTRUST = "the board's monotonic clock cannot be trusted"
# terminals obey these, show what follows in another order, or no file can hold them
CONTROL = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
BREAK = re.compile(r"[\t\n\x0b\x0c\r\x1c-\x1f\x85\u2028\u2029]")


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
        self._characters = 0
        self._columns: dict[str, list[str]] = {}
        self._kinds: set[str] = set()

    def take(self, line: str) -> Event | None:
        """Return the event of a line; None for what a login file or a library printed.

        Raises:
            EdgeSSLError: It is not what the agent says; the message names what was seen.
        """
        self._lines += 1
        self._characters += len(line)
        if len(line) > MAX_LINE or self._lines > MAX_LINES or self._characters > MAX_TRANSCRIPT:
            self._refuse(
                f"more than {MAX_LINES} lines, one of more than {MAX_LINE >> 20} MiB, or more than "
                f"{MAX_TRANSCRIPT >> 20} MiB in all"
            )
        event = self._parsed(line)
        if event is None:
            return None
        kind = event["k"]
        if not is_number(event.get("t", None if kind in FIELDS else 0)):
            self._refuse(f"'{kind}' at the moment {event.get('t')!r:.40}")
        for field, check in FIELDS.get(kind, {}).items():
            name = field.removesuffix("?")
            if name in event and not check(event[name]):
                self._refuse(f"'{kind}' whose '{name}' is {event[name]!r:.80}")
            if name not in event and name == field:
                self._refuse(f"'{kind}' without '{name}'")
        self._in_order(event)
        if kind in FIELDS:  # what nobody knows, nobody reads
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
        printed = PRINTED.get(event["k"], "")
        return {
            _one_line(name): self._clean(value, MAX_DEPTH, breaks=name == printed)
            for name, value in event.items()
        }

    def _clean(self, value: Any, depth: int, *, breaks: bool) -> Any:
        """Return the value without control characters; a number must be finite.

        Args:
            value: Anything that JSON can be.
            depth: How much deeper it may go.
            breaks: Whether texts keep their lines.
        """
        if isinstance(value, str):
            return _lines(value) if breaks else _one_line(value)
        if isinstance(value, float) and not math.isfinite(value):
            self._refuse(f"the number {value}")
        if depth == 0:
            self._refuse(f"something nested deeper than {MAX_DEPTH}")
        if isinstance(value, list):
            return [self._clean(item, depth - 1, breaks=breaks) for item in value]
        if isinstance(value, dict):
            return {
                _one_line(name): self._clean(item, depth - 1, breaks=breaks)
                for name, item in value.items()
            }
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
    """Return text of a board as it can be shown: on one line, no control characters, bounded."""
    return _one_line(text)[-limit:]


def _one_line(text: str) -> str:
    return CONTROL.sub("", BREAK.sub(" ", text))


def _lines(text: str) -> str:
    return CONTROL.sub("", BREAK.sub(lambda found: found[0] if found[0] in "\t\n" else " ", text))
