"""How much memory this process and its GPU have needed: read from the system, not estimated."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")

# the highest peaks that a PeakWatch made the system forget, in bytes
_forgotten = {"process": 0, "gpu": 0}


@dataclass(frozen=True, slots=True)
class Peak:
    """Most memory in use within a :class:`PeakWatch`, in bytes.

    Attributes:
        process: Resident memory of the process; with ``since_start``, since it started.
        process_before: Resident memory when the watching began.
        gpu: What torch had allocated on the GPU; None without one.
        since_start: The system cannot forget an earlier peak.
    """

    process: int
    process_before: int
    gpu: int | None
    since_start: bool


class PeakWatch:
    """Measures the most memory that is in use in a ``with`` block; ``peak`` holds it afterwards."""

    peak: Peak

    def __enter__(self) -> PeakWatch:
        process, gpu = process_peak(), gpu_peak()
        try:
            FORGET.write_text("5", encoding="ascii")  # from here on, the peak starts anew
            self._forgot, _forgotten["process"] = True, process
        except OSError:
            self._forgot = False
        if gpu is not None:
            _forgotten["gpu"] = gpu
            torch.cuda.reset_peak_memory_stats()
        self._before = _resident("VmRSS") or process
        return self

    def __exit__(self, *_: object) -> None:
        gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
        self.peak = Peak(_peak_now(), self._before, gpu, not self._forgot)


def process_peak() -> int:
    """Return the most resident memory that this process has had, in bytes."""
    return max(_peak_now(), _forgotten["process"])


def gpu_peak() -> int | None:
    """Return the most that torch has had allocated on the GPU, in bytes; None without one."""
    if not torch.cuda.is_available():
        return None
    return max(torch.cuda.max_memory_allocated(), _forgotten["gpu"])


def _peak_now() -> int:
    found = _resident("VmHWM")
    if found is None:  # not Linux, where the figure below may be that of the parent process
        unit = 1 if sys.platform == "darwin" else 1024
        found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return found


def _resident(field: str) -> int | None:
    """Return ``VmRSS`` (now) or ``VmHWM`` (peak) of this process; None where it cannot be read."""
    try:
        lines = STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(values[0]) * 1024 if values else None
