"""Keeping what watches off the cores that the model is bound to."""

from __future__ import annotations

import contextlib
import os


def others() -> frozenset[int]:
    """Return the cores that this process is not bound to; empty where it may use all."""
    if not hasattr(os, "sched_getaffinity"):
        return frozenset()
    # those that are switched off count, too, so that numbers have no end before the last
    configured = os.sysconf("SC_NPROCESSORS_CONF")
    return frozenset(range(configured)) - os.sched_getaffinity(0)


# of the process that will run the model; what it forks and moves away still knows them
OTHERS = others()


def step_aside(process: int = 0) -> None:
    """Move a process to the other cores, if there are any that it may use.

    Args:
        process: Its number; 0 for this one.
    """
    if OTHERS:
        with contextlib.suppress(OSError):  # refused by a container, or it has ended
            os.sched_setaffinity(process, OTHERS)
