"""What a bench is asked to do, and which runtime and provider then run a file on a board."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from edgessl.core.artifact import Artifact
from edgessl.core.errors import UsageProblem, nearest
from edgessl.devices.base import Traits
from edgessl.devices.energy import IDLE_S, WINDOW_S
from edgessl.devices.protocol import Preset, expected_seconds
from edgessl.devices.runtimes import RUNTIMES, readers_of


@dataclass(frozen=True, slots=True)
class Asked:
    """How an artifact is to be run and measured.

    Attributes:
        preset: Floors, caps and repeats.
        runtime: None for the board's best that reads the format.
        provider: Execution provider, device or delegate; None for the runtime's usual one.
        threads: Of the runtime, at least 1.
        cores: That the model may use; empty for the board's own choice.
        fixed_performance: Ask a phone for clocks that it can keep up.
        fps: Images a second at most; None for one after the other.
        energy: Measure energy, too.
        battery_wh: Watt-hours of the battery that the user means to use.
        power_csv: Readings of an external meter, complete when the bench ends.
        power_scope: What that meter sees.
        profile: Time each layer in a pass of its own, too.
    """

    preset: Preset
    runtime: str | None = None
    provider: str | None = None
    threads: int = 1
    cores: tuple[int, ...] = ()
    fixed_performance: bool = False
    fps: float | None = None
    energy: bool = False
    battery_wh: float | None = None
    power_csv: Path | None = None
    power_scope: Literal["wall", "usb", "module", "soc", "battery"] = "wall"
    profile: bool = False

    @property
    def floors(self) -> Preset:
        """The preset, stretched to a window that energy can be taken over."""
        if not self.energy or self.preset.timed_s >= WINDOW_S:
            return self.preset
        return replace(self.preset, timed_s=WINDOW_S)

    @property
    def seconds(self) -> float:
        """Seconds that one artifact takes at least, without cooldown and slow models."""
        preset = self.floors
        idle = 2 * IDLE_S * preset.repeats if self.energy else 0.0
        profile = preset.warmup_s + 3.0 if self.profile else 0.0
        return expected_seconds(preset, self.fps) + idle + profile


def check_rate(asked: Asked) -> None:
    """Refuse a rate at which the samples that a preset needs cannot be taken before its cap.

    Raises:
        UsageProblem: The rate is too low; the hint names the least one.
    """
    preset = asked.floors
    if not asked.fps or preset.timed_runs / asked.fps <= preset.timed_cap_s:
        return
    least = math.ceil(100 * preset.timed_runs / preset.timed_cap_s) / 100
    raise UsageProblem(
        f"at {asked.fps:g} images a second '{preset.name}' cannot take its {preset.timed_runs} "
        f"samples within {preset.timed_cap_s:g} s",
        hint=f"with '{preset.name}' the least is --fps {least:g}; 'sustained' needs fewer samples",
    )


def asked_values(asked: Asked) -> dict[str, Any]:
    """Return what distinguishes one bench of an artifact from another, as JSON values."""
    names = (
        "runtime", "provider", "threads", "fixed_performance", "fps", "energy", "battery_wh",
        "profile",
    )  # fmt: skip
    return {name: getattr(asked, name) for name in names} | {"cores": list(asked.cores)}


def runtime_for(
    artifact: Artifact, asked: Asked, traits: Traits, facts: Mapping[str, Any]
) -> tuple[str, str]:
    """Return the runtime and the provider that run an artifact on a board.

    Args:
        artifact: What is to run.
        asked: May name a runtime or a provider.
        traits: What the kind of board prefers.
        facts: Of the board; ``runtimes`` says what is installed there.

    Raises:
        UsageProblem: The runtime is unknown, or cannot open this format.
    """
    readers = readers_of(artifact.format)
    if not readers:
        measured = {form for runtime in RUNTIMES.values() for form in runtime.formats}
        raise UsageProblem(
            f"no runtime on a device reads '{artifact.format}' files",
            hint=f"formats that can be measured: {', '.join(sorted(measured))}",
        )
    if asked.runtime is not None:
        name, _, provider = asked.runtime.partition(":")
        if name not in RUNTIMES:
            raise UsageProblem(f"unknown runtime '{name}'", hint=nearest(name, RUNTIMES))
        if name not in readers:
            raise UsageProblem(
                f"'{artifact.format}' files do not run with '{name}'",
                hint=f"runtimes that read them: {', '.join(readers)}",
            )
        return name, asked.provider or provider or RUNTIMES[name].provider
    preferred = [*(traits.runtimes or {}).get(artifact.format, ()), *readers]
    if artifact.facts.get("target") == "tensorrt":  # prepared for it: elsewhere it says nothing
        preferred = [p for p in preferred if "tensorrt" in p.lower()]
    names = [p.partition(":") for p in preferred]
    usable = [(n, p) for n, _, p in names if n in readers and _there(n, p, facts)]
    name, provider = usable[0] if usable else (names[0][0], names[0][2])
    return name, asked.provider or provider or RUNTIMES[name].provider


def _there(runtime: str, provider: str, facts: Mapping[str, Any]) -> bool:
    """Whether a runtime, and the provider if it is a special one, is on the board."""
    packages = facts.get("runtimes", {})
    if runtime == "onnxruntime" and provider not in ("", RUNTIMES[runtime].provider):
        return "onnxruntime-gpu" in packages or provider in facts.get("providers", ())
    return RUNTIMES[runtime].is_among(packages)
