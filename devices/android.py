"""Android phones over adb: the agent runs with a Python of its own (experimental).

Without that Python a phone still tells what it is. Before a measurement the threads are bound to
the fastest cores, and a phone that is throttled is given time to cool down.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgessl.core.errors import EdgeSSLError
from edgessl.devices import android_bundle, dumpsys
from edgessl.devices.adb_scripts import FIXED, FIXED_MARK
from edgessl.devices.address import open_shell
from edgessl.devices.android_traits import TRAITS
from edgessl.devices.base import Board, CommandFailed, Progress, Shell
from edgessl.devices.linux import LinuxDevice, mask_of
from edgessl.devices.plain import shown

if TYPE_CHECKING:
    from edgessl.devices.conversation import Sources
    from edgessl.devices.events import Run
    from edgessl.devices.protocol import Preset

ANSWER_S = 30.0
COOL_CAP_S, COOL_STEP_S = 300.0, 5.0
# what a phone without our Python tells: by cat and echo only
LOOK = """
for p in "$1"/python-*/python; do [ -x "$p" ] && echo "python $p"; done
for c in /sys/devices/system/cpu/cpu[0-9]*; do echo core; done
cd /sys/devices/system/cpu/cpufreq && for p in policy*; do
  echo "cluster $(cat $p/cpuinfo_max_freq) $(cat $p/related_cpus)"; done
true
"""


def open_board(board: Board) -> AndroidDevice:
    """Return a phone; without an address the only one that adb sees."""
    board = dataclasses.replace(board, address=board.address or "adb")
    return AndroidDevice(board, open_shell(board))


class AndroidDevice(LinuxDevice):
    """A phone behind adb.

    A plan's ``cores`` are those that the model may use, by default those of the fastest clusters
    that have enough; ``fixed_performance`` asks Android for clocks that it can keep up, and is
    undone afterwards.

    Args:
        board: What the user said about it.
        shell: How to reach it.
    """

    def __init__(self, board: Board, shell: Shell) -> None:
        super().__init__(board, shell, TRAITS)

    def prepare(self, say: Progress) -> None:
        """Bring a Python to the phone, unless the user named one or it is there.

        Raises:
            BoardUnreachable: No connection, or it was lost.
            DiskFull: The phone has no room for it.
            EdgeSSLError: It could not be fetched, or does not run there.
        """
        if not self.board.python:
            android_bundle.bring(self.shell, say)
            self.refresh()

    def refresh(self) -> None:
        """Forget what the phone told, because its software has changed."""
        super().refresh()
        for name in ("python", "_seen"):
            self.__dict__.pop(name, None)

    @cached_property
    def python(self) -> str:
        """The interpreter on the phone.

        Raises:
            EdgeSSLError: There is none yet.
        """
        if self.board.python:
            return super().python
        if found := self._found_python:
            return found
        raise EdgeSSLError(
            f"no Python on {self.shell.where} yet",
            hint=f"edgessl devices setup {self.board.name or 'NAME'}",
        )

    def measure(
        self, plan: dict[str, Any], sources: Sources, preset: Preset, say: Progress
    ) -> list[Run]:
        """Cool down, bind the threads, run the plan, and put everything back.

        To each run an event ``{"k": "android", ...}`` is added: what was done to the phone.
        """
        self.python  # noqa: B018  (says what to do where there is none, before anything waits)
        waited_s = self._cool_down(say)
        cores, bound = self._cores(plan)
        fixed = self._fix_clocks() if plan.get("fixed_performance") else "not asked"
        try:
            runs = super().measure(plan | {"cores": cores}, sources, preset, say)
        finally:
            if fixed == "on":
                self._free_clocks()
        done = {"k": "android", "t": 0.0, "waited_s": waited_s, "bound": bound, "fixed": fixed}
        return [
            [*({**e, **self._identity} if e["k"] == "facts" else e for e in run), done]
            for run in runs
        ]

    @cached_property
    def _facts(self) -> dict[str, Any]:
        if not (self.board.python or self._found_python):
            return self._without_python() | self._identity
        return super()._facts | self._identity

    @cached_property
    def _seen(self) -> list[str]:
        return self.shell.run(
            ["sh", "-c", LOOK, "sh", self.shell.home], timeout_s=ANSWER_S
        ).splitlines()[:500]

    @property
    def _found_python(self) -> str:
        """A Python of ours on the phone, this version's before others; empty if none is there."""
        found = [line.split(" ", 1)[1] for line in self._seen if line.startswith("python /")]
        ours = android_bundle.remote_python(self.shell.home)
        return ours if ours in found else (found[-1] if found else "")

    @cached_property
    def _clusters(self) -> list[tuple[int, list[int]]]:
        """Clock at most (kHz) and cores of each cluster, the fastest first."""
        found = []
        for line in self._seen:
            match = re.fullmatch(r"cluster (\d{1,9}) ([\d\s,-]+)", line.strip())
            if match and (cores := cores_of(match[2])):
                found.append((int(match[1]), cores))
        return sorted(found, reverse=True)

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """What Android calls the phone; its kernel knows neither maker nor model."""
        told = dumpsys.properties(self.shell.run(["getprop"], timeout_s=ANSWER_S))
        kept = {name: shown(told.get(name, "")) for name in PROPERTIES}
        maker, model = kept["ro.product.manufacturer"], kept["ro.product.model"]
        named = model if model.lower().startswith(maker.lower()) else f"{maker} {model}"
        soc = " ".join(filter(None, (kept["ro.soc.manufacturer"], kept["ro.soc.model"])))
        serial = told.get("ro.serialno") or told.get("ro.boot.serialno") or self.shell.where
        return {
            "board": named.strip() or None,
            "cpu": soc or kept["ro.board.platform"] or kept["ro.hardware"] or "unknown",
            "os": f"Android {kept['ro.build.version.release']}".strip(),
            # every phone calls its host "localhost"
            "host_hash": hashlib.sha256(serial.encode()).hexdigest()[:6],
            "android": kept,
        }

    def _without_python(self) -> dict[str, Any]:
        clusters = [
            {"cores": " ".join(map(str, cores)), "max_mhz": round(khz / 1000)}
            for khz, cores in self._clusters
        ]
        uname = self.shell.run(["uname", "-m", "-r"], timeout_s=ANSWER_S).split()
        return {
            "machine": shown(uname[-1]) if uname else "",
            "kernel": shown(uname[0]) if uname else "",
            "cores": self._seen.count("core"),
            "affinity": None, "clusters": clusters, "policies": {}, "temp_c": {}, "fans": {},
            "memory_mb": {}, "power_supplies": {}, "runtimes": {}, "wheels": {}, "python": "",
            "emulated": False, "virtual_machine": None,
            "not_observable": ["everything that the agent tells: there is no Python yet"],
        }  # fmt: skip

    def _cool_down(self, say: Progress) -> float:
        """Wait until Android reports no throttling, at most ``COOL_CAP_S``; return seconds."""
        begin = time.monotonic()
        while (status := self._thermal_status()) and time.monotonic() - begin < COOL_CAP_S:
            say(f"waiting for the phone to cool down: thermal status {status}")
            time.sleep(COOL_STEP_S)
        return round(time.monotonic() - begin, 1)

    def _thermal_status(self) -> int | None:
        try:
            said = self.shell.run(["dumpsys", "thermalservice"], timeout_s=ANSWER_S)
        except CommandFailed:
            return None
        return dumpsys.thermal(said).status

    def _cores(self, plan: dict[str, Any]) -> tuple[list[int], str]:
        """Choose the cores of a plan; return them, and in words, or why none were chosen."""
        threads = int(plan.get("threads") or 1)
        cores = sorted(plan.get("cores") or fastest(self._clusters, threads))
        if not cores:
            return [], "not bound to cores: the phone does not tell its clusters"
        mask = mask_of(cores)
        try:
            self.shell.run(["taskset", mask, "true"], timeout_s=ANSWER_S)
        except CommandFailed as error:
            return [], f"not bound to cores: {shown(error.message)}"
        top = max((khz for khz, own in self._clusters if set(own) & set(cores)), default=0)
        speed = f", at most {top // 1000} MHz" if top else ""
        return cores, f"bound to cores {', '.join(map(str, cores))} (mask {mask}{speed})"

    def _fix_clocks(self) -> str:
        """Ask for clocks that the phone can keep up; return ``on`` or ``not supported``."""
        self.shell.run(["touch", FIXED_MARK], timeout_s=ANSWER_S)  # if we are lost, it is undone
        if self._switched("true"):
            return "on"
        self.shell.remove(FIXED_MARK)
        return "not supported"

    def _free_clocks(self) -> None:
        # what ended the measurement must not be hidden; the keeper on the phone does it, too
        with suppress(EdgeSSLError):
            if self._switched("false"):
                self.shell.remove(FIXED_MARK)

    def _switched(self, on: str) -> bool:
        try:
            said = self.shell.run([*FIXED, on], timeout_s=ANSWER_S)
        except CommandFailed:
            return False
        return not re.search(r"unsupported|fail|unknown", said, re.IGNORECASE)


PROPERTIES = (
    "ro.product.manufacturer", "ro.product.model", "ro.product.device", "ro.soc.manufacturer",
    "ro.soc.model", "ro.board.platform", "ro.hardware", "ro.product.cpu.abi",
    "ro.build.version.release", "ro.build.version.sdk", "ro.build.version.security_patch",
)  # fmt: skip


def cores_of(text: str) -> list[int]:
    """Read ``0 1 2 3``, ``0-3`` or ``0-1,4``: at most 64 cores, numbered below 64."""
    found: set[int] = set()
    for part in re.findall(r"(\d{1,3})(?:-(\d{1,3}))?", text)[:64]:
        first, last = int(part[0]), int(part[1] or part[0])
        found |= set(range(first, min(last, 63) + 1))
    return sorted(core for core in found if core < 64)


def fastest(clusters: Sequence[tuple[int, list[int]]], threads: int) -> list[int]:
    """Return the cores of the fastest clusters that together have a core for each thread.

    Args:
        clusters: Clock at most and cores.
        threads: Threads of the model.
    """
    chosen: list[int] = []
    for _, cores in sorted(clusters, reverse=True):
        if len(chosen) >= threads:
            break
        chosen += cores
    return sorted(chosen)
