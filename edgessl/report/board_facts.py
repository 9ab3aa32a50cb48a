"""What a board told about itself and how it was measured, as short pairs; the rest is folded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from edgessl.report.facts import moment
from edgessl.report.formats import (
    MISSING,
    NBSP,
    count,
    duration,
    flatten,
    is_number,
    plain,
    plural,
    shortened,
    significant,
)
from edgessl.report.found import FoundBench
from edgessl.report.tolerant import first_text, mapping

Pairs = list[tuple[str, str]]
LONGEST = 160  # characters of a fact that a board tells
MOST_FACTS = 150  # rows of a folded table
MEMORY = {
    "max_rss": "Most memory of the process", "model_rss": "Memory of the model",
    "peak": "Most memory of the process",
}  # fmt: skip


def device_name(device: Mapping[str, Any], otherwise: str = "") -> str:
    """Name a device for people; what is no board says so in its name."""
    names = [first_text(device, "board", "product", "cpu") or otherwise]
    names += [first_text(device, "browser")]
    name = ", ".join(shortened(plain(n), 60) for n in names if n)
    return f"{name} (emulated)" if device.get("emulated") is True else name


def board_facts(device: Mapping[str, Any]) -> Pairs:
    """Return the facts of a board that a reader looks for, as short texts."""
    memory = mapping(device.get("memory_mb")).get("MemTotal")
    supplies = mapping(device.get("power_supplies"))
    found = [
        ("Board", first_text(device, "board", "product")),
        ("Browser", first_text(device, "browser")),
        ("Processor", _joined([first_text(device, "cpu"), first_text(device, "machine")])),
        ("Cores", _cores(device)),
        ("Governor", _governors(device)),
        ("Memory", f"{significant(memory / 1024)}{NBSP}GiB" if is_number(memory) else ""),
        ("System", _joined([first_text(device, "os"), first_text(device, "kernel")])),
        ("L4T", first_text(device, "l4t")),
        ("C library, Python", _joined(first_text(device, n) for n in ("libc", "python"))),
        ("Power supply", _joined(f"{name} {plain(state)}" for name, state in supplies.items())),
        ("Virtual machine", first_text(device, "virtual_machine")),
        ("Emulated", first_text(device, "emulator") or _yes(device.get("emulated"))),
        ("Id", first_text(device, "id")),
    ]
    return [(name, shortened(text, LONGEST)) for name, text in found if text]


def all_facts(*documents: Mapping[str, Any]) -> Pairs:
    """Return everything in some objects by dotted names, for a folded table."""
    pairs = [
        (shortened(name, 80), shortened(text, LONGEST))
        for document in documents
        for name, text in flatten(document)
        if text != MISSING
    ]
    left = len(pairs) - MOST_FACTS
    more = [("…", f"{count(left)} more in the file")] if left > 0 else []
    return pairs[:MOST_FACTS] + more


def protocol_facts(bench: FoundBench) -> Pairs:
    """Return how a bench was taken: preset, warm-up, samples, images, memory."""
    protocol, result = bench.result.protocol, bench.result
    preset, asked = mapping(protocol.get("preset")), mapping(protocol.get("asked"))
    found = [("Preset", first_text(preset, "name") or first_text(protocol, "preset"))]
    repeats = preset.get("repeats")
    if is_number(repeats) and repeats > 1:
        found.append(("Repeats", f"{count(int(repeats))} fresh processes"))
    found += list(_rounds(protocol))
    found.append(("Rate asked for", _rate(asked.get("fps"))))
    images = result.data.get("n")
    found.append(("Images", count(images) if isinstance(images, int) else ""))
    for name, value in result.memory_mb.items():
        known = MEMORY.get(name) or f"Memory, {shortened(name, 40)}"
        found.append((known, f"{significant(value)}{NBSP}MiB"))
    if result.throughput_fps is not None and result.verdict != "WRONG_ANSWERS":
        found.append(("Images a second", significant(result.throughput_fps)))
    seconds = result.run.get("seconds")
    took = f", took {duration(seconds)}" if is_number(seconds) and seconds >= 0 else ""
    found.append(("Taken", f"{moment(first_text(result.run, 'started'))}{took}".strip(", ")))
    return [(name, shortened(text, LONGEST)) for name, text in found if text]


def _rounds(protocol: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield warm-up and timed part, summed over the processes."""
    for key, name, unit in (("warmup", "Warm-up", "runs"), ("timed", "Timed", "n")):
        told = protocol.get(key)
        rounds = [mapping(item) for item in told] if isinstance(told, list) else []
        runs = [r[unit] for r in rounds if isinstance(r.get(unit), int)]
        seconds = [r["s"] for r in rounds if is_number(r.get("s"))]
        if runs and seconds:
            blocks = [r["block"] for r in rounds if isinstance(r.get("block"), int)]
            each = f", each the mean of {blocks[0]}" if blocks and blocks[0] > 1 else ""
            what = plural(sum(runs), "sample" if key == "timed" else "inference")
            yield name, f"{what}{each} in {significant(sum(seconds))}{NBSP}s"


def _rate(fps: object) -> str:
    return f"{fps:g} images a second" if is_number(fps) else ""


def _cores(device: Mapping[str, Any]) -> str:
    cores, usable = first_text(device, "cores"), device.get("affinity")
    told = [cores if cores != "0" else ""]
    if isinstance(usable, list) and usable and str(len(usable)) != cores:
        told.append(f"{len(usable)} usable")
    clusters = device.get("clusters")
    for cluster in clusters if isinstance(clusters, list) else []:
        own, fastest = mapping(cluster).get("cores"), mapping(cluster).get("max_mhz")
        if is_number(fastest):
            size = f"{len(own)} x " if isinstance(own, list) else ""
            told.append(f"{size}{significant(fastest / 1000)}{NBSP}GHz")
    return _joined(told)


def _governors(device: Mapping[str, Any]) -> str:
    policies = mapping(device.get("policies")).values()
    return _joined(dict.fromkeys(first_text(mapping(policy), "governor") for policy in policies))


def _joined(words: Iterable[str]) -> str:
    return ", ".join(word for word in words if word)


def _yes(value: object) -> str:
    return "yes" if value is True else ""
