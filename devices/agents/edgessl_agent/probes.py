"""Texts that the workstation asked for: programs and files of one kind of board."""

from __future__ import annotations

import glob
import os
import select
import signal
import subprocess
import time
from typing import Any

from .cores import step_aside
from .reading import read

LIMIT = 64 * 1024
TIME_S = 5.0


def read_all(probes: list[dict[str, Any]]) -> dict[str, str]:
    """Return the text of each probe by name; one that fails or says nothing is left out."""
    texts = {probe["name"]: _read(probe) for probe in probes}
    return {name: text for name, text in texts.items() if text}


def _read(probe: dict[str, Any]) -> str:
    if probe.get("argv"):
        return output_of(probe["argv"])
    pattern = probe["file"]
    if not set("*?[") & set(pattern):
        return read(pattern, LIMIT)
    lines = []
    for path in sorted(glob.glob(pattern)):
        text = " ".join(read(path, LIMIT).split("\n"))
        if text:
            lines.append(path + "\t" + text)
    return "\n".join(lines)[:LIMIT]


def output_of(argv: list[str], time_s: float = TIME_S) -> str:
    """Return what a program printed: its first 64 KiB, "" if it failed or took too long."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # killed with all that it started
        )
    except OSError:
        return ""
    step_aside(process.pid)
    assert process.stdout is not None
    data, deadline, whole = b"", time.monotonic() + time_s, False
    try:
        while len(data) < LIMIT:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                return ""
            part = os.read(process.stdout.fileno(), LIMIT - len(data))
            if not part:
                whole = True
                break
            data += part
        if whole and process.wait(max(0.1, deadline - time.monotonic())) != 0:
            return ""
    except subprocess.TimeoutExpired:
        return ""
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()
    return data.decode("utf-8", "replace").replace("\0", "").strip()
