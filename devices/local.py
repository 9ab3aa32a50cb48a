"""The workstation as a board: the same agent, in the same fresh processes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from edgessl.core.errors import EdgeSSLError
from edgessl.devices.base import AGENT, Shell
from edgessl.devices.shell import LocalShell

FACTS_TIMEOUT_S = 60.0


class LocalDevice:
    """The machine that edgessl runs on, with the Python that runs it."""

    kind = "local"

    def __init__(self, shell: Shell | None = None, python: str = sys.executable) -> None:
        self.shell: Shell = shell or LocalShell()
        self.python = python

    @property
    def id(self) -> str:
        """Processor, cores and six digits that tell equal machines apart."""
        return device_id(self._facts)

    def facts(self) -> Mapping[str, Any]:
        """Return what the agent sees; asked once.

        Raises:
            EdgeSSLError: The agent did not answer.
        """
        return self._facts

    @cached_property
    def _facts(self) -> dict[str, Any]:
        remote = "agent-facts.py"
        self.shell.put(AGENT, remote)
        try:
            text = self.shell.run([self.python, remote, "facts"], timeout_s=FACTS_TIMEOUT_S)
        finally:
            self.shell.remove(remote)
        for line in text.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and event.get("k") == "facts":
                return {name: value for name, value in event.items() if name not in ("k", "t")}
        raise EdgeSSLError(f"the agent on this machine told no facts: {text[:200]!r}")


def device_id(facts: Mapping[str, Any]) -> str:
    """Return ``cpu-model-4c-1a2b3c``: safe as a folder name, without host or user name."""
    noise = r"\(r\)|\(tm\)|\bcpu\b|\bprocessor\b|@.*$"
    model = re.sub(noise, " ", str(facts["board"] or facts["cpu"]), flags=re.IGNORECASE)
    slug = "-".join(re.findall(r"[a-z0-9]+", model.lower()))[:32].strip("-")
    return f"{slug or 'machine'}-{facts['cores']}c-{facts['host_hash']}"
