"""What every entry of every table keeps to, whatever its kind."""

import tomllib
from pathlib import Path

import pytest

from edgessl.data import SOURCES
from edgessl.devices import DEVICES
from edgessl.encoders import ENCODERS
from edgessl.exporters import EXPORTERS, PRECISIONS
from edgessl.methods import METHODS

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
TABLES = (METHODS, ENCODERS, EXPORTERS, DEVICES, SOURCES)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.kind)
def test_every_entry_has_a_summary_and_an_extra_that_can_be_installed(table):
    extras = {"", *PROJECT["project"]["optional-dependencies"]}
    assert {name for name in table if table[name].extra not in extras} == set()
    assert {name for name in table if not table[name].summary} == set()


@pytest.mark.parametrize(
    ("table", "facts"),
    [
        (METHODS, {"cost", "dense_units", "teacher", "source", "status"}),
        (ENCODERS, {"features_1x", "macs_1x_224_m", "source", "imagenet_weights"}),
        (EXPORTERS, {"format", "layout", "runtime", *PRECISIONS}),
        (DEVICES, {"address", "runtimes"}),
    ],
    ids=lambda part: getattr(part, "kind", ""),
)
def test_every_entry_has_the_facts_of_its_kind(table, facts):
    lacking = {name: facts - set(table[name].facts) for name in table}
    assert {name: those for name, those in lacking.items() if those} == {}
