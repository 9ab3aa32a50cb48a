"""One run in the page, as it is heard: events like an agent's, or why no more of them come."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from queue import Empty
from typing import Any

from edgessl.core.errors import BoardUnreachable, EdgeSSLError
from edgessl.devices.agent_lines import Listener
from edgessl.devices.base import Progress
from edgessl.devices.browser import packages
from edgessl.devices.browser.heard import as_agent, explained, facts_of
from edgessl.devices.browser.line import Line
from edgessl.devices.conversation import PROTO
from edgessl.devices.events import Event, Run

SILENCE_S = 600.0  # of the model, while the page is alive
AGAIN = "keep the page in front and the screen on; then bench again"


def listen(
    line: Line,
    number: int,
    plan: Mapping[str, Any],
    browser: tuple[str, Mapping[str, Any]],
    say: Progress,
) -> Run:
    """Take what the page says about an order until it is done.

    Args:
        line: To the page.
        number: Of the order.
        plan: What it was told to do.
        browser: Its name, for messages, and its facts.
        say: Told how far it is.

    Raises:
        BoardUnreachable: The page was closed or fell silent.
        OutOfMemory, FileInvalid, DataInvalid, EdgeSSLError: It failed, and says why; it said what
            it cannot have; or another browser took over.
    """
    where, facts = browser
    listener = Listener(where, plan["images"] if plan["score"] else None)
    said = {"proto": PROTO, "runtime": packages.label(plan["runtime"])}
    for kind, fields in (
        ("hello", said | {"python": None, "numpy": None}),
        ("facts", dict(facts)),
        ("plan", {"threads": plan["threads"]}),
    ):
        listener.take(json.dumps({"k": kind, "t": 0} | fields))
    spoken = time.monotonic()
    while True:
        phase = listener.seen[-1]["k"]
        try:
            post = line.posts.get(timeout=0.5)
        except Empty:
            post = []
        for told in post:
            if told["k"] == "facts":
                _check_same(facts_of(told), facts)
            if told.get("job") != number:
                continue
            if told["k"] == "bye":
                raise BoardUnreachable(f"the page was closed after '{phase}'", hint=AGAIN)
            spoken = time.monotonic()
            event = _taken(listener, told, where)
            _report(event, say)
            if event["k"] == "done":
                return listener.seen
        if line.silent:
            raise BoardUnreachable(f"nothing more was heard of {where} after '{phase}'", hint=AGAIN)
        if time.monotonic() - spoken > SILENCE_S:
            raise EdgeSSLError(f"the model said nothing for {SILENCE_S:.0f} s after '{phase}'")


def _taken(listener: Listener, told: Mapping[str, Any], where: str) -> Event:
    if told["k"] == "error":
        raise explained(told, where)
    if told["k"] in ("hello", "facts", "plan"):
        raise EdgeSSLError(f"the page on {where} said what it cannot have: '{told['k']}'")
    event = listener.take(json.dumps(as_agent(told)))
    if event is None:
        raise EdgeSSLError(f"the page on {where} said something that is no event")
    return event


def _check_same(told: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    if told["host_hash"] != facts["host_hash"]:
        raise EdgeSSLError(
            f"another browser opened the page: {told['browser']} on {told['cpu']}",
            hint="bench each browser in a command of its own",
        )


def _report(event: Event, say: Progress) -> None:
    if event["k"] == "warmup":
        say(f"warm-up: {event['runs']} runs, {event['s']:.0f} s")
    elif event["k"] == "lat":
        say(f"timed: {event['first'] + len(event['at_us'])} samples")
    elif event["k"] == "acc":
        say(f"answered: {event['first'] + len(event['rows']['predicted'])} images")
