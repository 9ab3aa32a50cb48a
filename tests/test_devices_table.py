"""The table of devices: what every entry keeps to, and the three places that know a runtime."""

import json

import pytest

from edgessl.devices import DEVICES
from edgessl.devices.agents.edgessl_agent import runtimes, software
from edgessl.devices.base import Board, Device, Shell, Traits
from edgessl.devices.fake import Answer, FakeShell
from edgessl.devices.runtimes import RUNTIMES, readers_of
from edgessl.devices.shell import LocalShell
from edgessl.exporters import EXPORTERS


def pretended_board():
    facts = {"k": "facts", "t": 0, "board": "Pi", "cpu": "x", "cores": 4, "host_hash": "0a1b2c"}
    return FakeShell(lambda argv: Answer(json.dumps(facts)))


def named_operations(protocol):
    return {n for n, part in vars(protocol).items() if not n.startswith("_") and callable(part)}


@pytest.mark.parametrize("name", tuple(DEVICES))
def test_the_table_fits_the_protocol(name):
    made = DEVICES.load(name)(Board(name))
    assert made.kind == name
    assert isinstance(made.traits, Traits)
    missing = {n for n in named_operations(Device) if not callable(getattr(made, n, None))}
    assert missing == set()
    made.close()
    made.close()
    assert set(str(DEVICES[name].facts["runtimes"]).split(", ")) <= set(RUNTIMES)


@pytest.mark.parametrize("shell", [LocalShell, pretended_board])
def test_the_shells_fit_the_protocol(shell):
    made = shell()
    missing = {n for n in named_operations(Shell) if not callable(getattr(made, n, None))}
    assert missing == set()
    assert made.where
    assert made.home
    assert made.workdir
    made.close()


def test_every_runtime_is_known_to_host_and_agent():
    assert set(software.RUNTIMES) == set(runtimes.OPENERS) == set(RUNTIMES)
    packages = {package for runtime in RUNTIMES.values() for package in runtime.packages}
    assert packages | {"numpy"} == set(software.PACKAGES)
    formats = {str(entry.facts["format"]) for entry in EXPORTERS.entries.values()}
    assert {form for runtime in RUNTIMES.values() for form in runtime.formats} <= formats
    assert all(readers_of(form) for form in formats)
