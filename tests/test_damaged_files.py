"""Damaged files: each passes or is refused with its reason, in bounded memory, and nothing else."""

import random
import subprocess
import sys
import tracemalloc

import pytest
from small_models import MAIN, damaged, sound

from edgessl.core.errors import FileInvalid
from edgessl.exporters.untrusted import OPENED, check_files

formats = pytest.mark.parametrize("format", list(MAIN))


def put(folder, files):
    for name, data in files.items():
        (folder / name).write_bytes(data)


def survives(folder, format, files, tries, seed):
    """Check damaged copies; return how many passed. Anything but FileInvalid fails the test."""
    chance, passed = random.Random(seed), 0
    for _ in range(tries):
        put(folder, files)
        name = chance.choice((MAIN[format], *files))
        (folder / name).write_bytes(damaged(files[name], chance) or b"")
        try:
            check_files(format, folder, OPENED[format])
            passed += 1
        except FileInvalid:
            pass
    return passed


@formats
def test_damage_passes_or_is_named_and_never_anything_else(tmp_path, format):
    files = sound(format)
    for place in range(0, len(files[MAIN[format]]), 7):
        put(tmp_path, files | {MAIN[format]: files[MAIN[format]][:place]})  # cut
        with pytest.raises(FileInvalid):
            check_files(format, tmp_path, OPENED[format])
    assert survives(tmp_path, format, files, 300, 1) < 250


@formats
def test_a_claim_costs_no_more_memory_than_the_file(tmp_path, format):
    files = sound(format)
    tracemalloc.start()
    try:
        survives(tmp_path, format, files, 100, 2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**21  # the files have some hundred bytes to some thousand


EXPORT = """
import sys
from pathlib import Path
import torch
from torch import nn
from edgessl.core.artifact import InputSpec
from edgessl.exporters import EXPORTERS
from edgessl.exporters.base import Form
torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish(),
    nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    nn.Linear(8, 10),
).eval()
EXPORTERS.load(sys.argv[1])().write(net, InputSpec.square(32), Path(sys.argv[2]), Form())
"""


@pytest.mark.slow
@pytest.mark.export
@formats
def test_what_the_exporters_write_passes_whole_and_survives_damage(tmp_path, format):
    for package in ("torch", {"tflite": "litert_torch"}.get(format, format)):
        pytest.importorskip(package, reason=f"the extra of {format} is not installed")
    subprocess.run([sys.executable, "-c", EXPORT, format, tmp_path], check=True)
    check_files(format, tmp_path, OPENED[format])
    files = {name: (tmp_path / name).read_bytes() for name in OPENED[format]}
    survives(tmp_path, format, files, 800, 3)
