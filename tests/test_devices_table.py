"""The table of devices: what every entry keeps to, and the three places that know a runtime."""

import json
import re
import runpy

import pytest

from edgessl.devices import DEVICES
from edgessl.devices.base import AGENT, Device, Shell
from edgessl.devices.bench import RUNTIME_OF_FORMAT
from edgessl.devices.conversation import RUNTIMES
from edgessl.devices.shell import Answer, FakeShell
from edgessl.exporters import EXPORTERS


def pretended_board():
    facts = {"k": "facts", "t": 0, "board": "Pi", "cpu": "x", "cores": 4, "host_hash": "0a1b2c"}
    return FakeShell(lambda argv: Answer(json.dumps(facts)))


def named_operations(protocol):
    return {n for n, part in vars(protocol).items() if not n.startswith("_") and callable(part)}


@pytest.mark.parametrize("name", tuple(DEVICES))
def test_the_table_fits_the_classes(name):
    made = DEVICES.load(name)()  # no arguments: a recipe has nothing to give
    assert made.kind == name
    assert isinstance(made.python, str)
    for part, protocol in ((made, Device), (made.shell, Shell)):
        missing = {n for n in named_operations(protocol) if not callable(getattr(part, n, None))}
        assert missing == set()
    assert made.shell.workdir
    assert set(str(DEVICES[name].facts["runtimes"]).split(", ")) <= set(RUNTIMES)
    made.shell.close()
    made.shell = pretended_board()  # none of its own is needed: its facts come through the shell
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", made.id)
    assert made.facts()["cores"] == 4
    again = DEVICES.load(name)()
    again.shell.close()
    again.shell = pretended_board()
    assert again.id == made.id


def test_every_runtime_of_a_format_is_known_to_host_and_agent():
    agent = runpy.run_path(str(AGENT))
    named = set(RUNTIME_OF_FORMAT.values())
    assert named == set(RUNTIMES) == set(agent["RUNTIMES"]) == set(agent["OPENERS"])
    formats = {str(entry.facts["format"]) for entry in EXPORTERS.entries.values()}
    assert set(RUNTIME_OF_FORMAT) <= formats
