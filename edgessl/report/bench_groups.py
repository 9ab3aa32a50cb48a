"""Benches in groups that may be compared: a browser or a stand-in is no board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgessl.report.latency import BenchView, Sort
from edgessl.report.tradeoff import TradeOff, accuracy_against_latency, compared_distributions

TITLES: dict[Sort, tuple[str, str]] = {
    "native": ("", ""),
    "browser": (
        "In a browser",
        "A page in a browser ran the very file. Its runtime is another one, its clock is coarse, "
        "and clocks and heat of the device cannot be seen from there: do not compare these times "
        "with those of programs on a device.",
    ),
    "emulated": (
        "On a stand-in (emulated): these times say nothing about a board",
        "The processor was emulated by another one. That the file runs there and gives the right "
        "answers is worth knowing; how long it took is not.",
    ),
    "estimated": (
        "Estimated: nothing was timed",
        "These figures were computed, not measured.",
    ),
    "untrained": (
        "Untrained nets",
        "The weights are random: the times are those of trained nets of the same shape, the "
        "answers are worth nothing.",
    ),
}


@dataclass(frozen=True, slots=True)
class Group:
    """Benches of one sort, with the plots that compare them; ``title`` is empty for native ones."""

    sort: Sort
    title: str
    about: str
    views: list[BenchView]
    tradeoff: TradeOff | None = None
    distributions: tuple[Markup, str] | None = None

    @property
    def metered(self) -> list[BenchView]:
        """Those with figures from a power meter."""
        return [view for view in self.views if view.energy and view.energy.net]


def bench_groups(views: Sequence[BenchView]) -> list[Group]:
    """Sort benches into groups, the native ones first; groups without benches are left out."""
    groups = []
    for sort, (title, about) in TITLES.items():
        own = [view for view in views if view.sort == sort]
        # of the others no time deserves to be compared
        plotted = sort == "native" or (sort == "browser" and len(own) > 1)
        if own:
            groups.append(
                Group(
                    sort,
                    title,
                    about,
                    own,
                    accuracy_against_latency(own) if plotted else None,
                    compared_distributions(own) if plotted else None,
                )
            )
    return groups
