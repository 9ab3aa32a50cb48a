"""Names that the shell completes; the tables are read, nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Callable

from edgessl.core.registry import Table


def _names(load: Callable[[], Table]) -> Callable[[str], list[tuple[str, str]]]:
    def complete(incomplete: str) -> list[tuple[str, str]]:
        entries = load().entries.items()
        return [(name, e.summary) for name, e in entries if name.startswith(incomplete)]

    return complete


def _encoders() -> Table:
    from edgessl.encoders import ENCODERS

    return ENCODERS


def _methods() -> Table:
    from edgessl.methods import METHODS

    return METHODS


def _targets() -> Table:
    from edgessl.exporters import EXPORTERS

    return EXPORTERS


def _devices() -> Table:
    from edgessl.devices import DEVICES

    return DEVICES


encoders, methods = _names(_encoders), _names(_methods)
targets, devices = _names(_targets), _names(_devices)


def boards(incomplete: str) -> list[tuple[str, str]]:
    """Complete the boards that were added, and the kinds."""
    from edgessl.core.errors import EdgeSSLError
    from edgessl.devices.boards import added_boards

    try:
        added = [(b.name, f"{b.kind} {b.address}".strip()) for b in added_boards().values()]
    except EdgeSSLError:  # a broken file is told when a board is used
        added = []
    return [pair for pair in added if pair[0].startswith(incomplete)] + devices(incomplete)


def recipes(incomplete: str) -> list[tuple[str, str]]:
    """Complete the names of shipped recipes."""
    from edgessl.core.shipped import shipped_recipes

    return [pair for pair in shipped_recipes().items() if pair[0].startswith(incomplete)]


def presets(incomplete: str) -> list[str]:
    """Complete the presets of ``bench``."""
    return [name for name in ("quick", "standard", "sustained") if name.startswith(incomplete)]


def precisions(incomplete: str) -> list[str]:
    """Complete the precisions of ``export``."""
    from edgessl.exporters import PRECISIONS

    return [name for name in PRECISIONS if name.startswith(incomplete)]


def stages(incomplete: str) -> list[str]:
    """Complete the stages of ``run``."""
    from edgessl.core.runs import STAGES

    return [name for name in STAGES if name.startswith(incomplete)]
