"""Which wheels a board runs: from its Python, C library and processor to files on this machine.

pip chooses and fetches, from the index and with the settings that the user's pip has; nothing is
fetched from anywhere else. Of what a runtime requires only numpy is taken: that is what running a
model needs, and pip would judge the other requirements by this machine's Python.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from edgessl.core.errors import EdgeSSLError, FileInvalid, MissingExtra, UsageProblem
from edgessl.devices.runtimes import RUNTIMES
from edgessl.devices.wheel_target import Target, two_numbers

PIP_TIME_S = 900.0
OTHER_PYTHONS = ("3.14", "3.13", "3.12", "3.11", "3.10", "3.9", "3.8")
# bounds that a package's own metadata lacks
NUMPY_BOUND = {"tflite-runtime": "<2"}
OFFLINE = ("connection broken", "connection error", "name resolution", "newconnectionerror",
           "connect timeout", "timed out", "proxyerror", "sslerror")  # fmt: skip
# where a package with CUDA comes from; pip is never sent there by itself
CUDA_WHEELS = {
    5: "take onnxruntime-gpu for JetPack 5 and Python 3.8 from NVIDIA's page "
    "https://elinux.org/Jetson_Zoo#ONNX_Runtime",
    6: "pip download --no-deps --only-binary=:all: --platform linux_aarch64 --python-version 3.10 "
    "--index-url https://pypi.jetson-ai-lab.io/jp6/cu126 onnxruntime-gpu",
}


class NoWheel(EdgeSSLError):
    """Nobody publishes this package for such a board; the hint is what can be done."""


def fetch(
    runtime: str, target: Target, folder: Path, given: Sequence[Path] = (), board: str = "NAME"
) -> list[Path]:
    """Fetch the wheels of a runtime and the numpy that it needs.

    Args:
        runtime: ``onnxruntime``, ``litert`` or ``openvino``.
        target: The board.
        folder: Empty folder that receives the wheels.
        given: Wheels of the user, taken before those of the index.
        board: How messages name the board in commands.

    Raises:
        NoWheel: The hint is the exact next step.
        FileInvalid: A given wheel does not run on the board.
        EdgeSSLError: The index cannot be reached, or pip failed.
    """
    refuse_impossible(runtime, target, board, given)
    names = [distribution(path) for path in given]
    packages = [name for name in names if name in RUNTIMES[runtime].packages]
    for path in given:
        _fetch_given(path, target, folder)
    for package in packages or _candidates(runtime, target):
        try:
            if not packages:
                download(package, target, folder)
            if "numpy" not in names:
                _fetch_numpy(package, target, folder)
            return sorted(folder.glob("*.whl"))
        except NoWheel as error:
            if error.hint:
                raise
    raise no_wheel(runtime, target, board)


def unpack(wheels: Sequence[Path], target: Target, tree: Path) -> None:
    """Lay wheels out as a folder for ``PYTHONPATH``; nothing of them is run."""
    pip("install", "--no-index", "--no-deps", "--no-compile", "--target", str(tree),
        *target.options(), *map(str, wheels))  # fmt: skip
    for path in sorted((tree / "bin").glob("*")):
        path.unlink()  # start scripts name the Python of this machine
    if (tree / "bin").is_dir():
        (tree / "bin").rmdir()


def distribution(wheel: Path) -> str:
    """Return the name of the package in a wheel, as an index writes it; empty if it is none."""
    found = re.fullmatch(r"([A-Za-z0-9_.]+)-([^-]+)(-[^-]+)?-[^-]+-[^-]+-[^-]+\.whl", wheel.name)
    return re.sub(r"[_.]+", "-", found[1]).lower() if found else ""


def version(wheel: Path) -> str:
    """Return the version in the name of a wheel."""
    return wheel.name.split("-")[1]


def refuse_impossible(
    runtime: str, target: Target, board: str = "NAME", given: Sequence[Path] = ()
) -> None:
    """Refuse what no index can help with, before one is asked.

    Raises:
        UsageProblem: No such runtime.
        NoWheel: Names the next step.
    """
    if runtime not in RUNTIMES:
        raise UsageProblem(f"unknown runtime '{runtime}'", hint=f"known: {', '.join(RUNTIMES)}")
    if runtime == "tensorrt":
        raise NoWheel(
            "TensorRT comes with JetPack, not as a package",
            hint="on the Jetson: sudo apt-get install nvidia-jetpack",
        )
    if target.implementation != "cpython" or target.python < (3, 8):
        raise NoWheel(
            f"{target.implementation} {target.python_text} on the board runs no runtime",
            hint="name a CPython 3.8 or newer: edgessl devices add NAME ... --python PATH",
        )
    if runtime == "onnxruntime" and target.jetpack in CUDA_WHEELS and not given:
        raise NoWheel(
            f"onnxruntime with CUDA for JetPack {target.jetpack} is not on PyPI, and the one there "
            "would use the CPU only",
            hint=f"{CUDA_WHEELS[target.jetpack]}; then: edgessl devices setup {board} "
            "--wheel onnxruntime_gpu-*.whl",
        )


def no_wheel(runtime: str, target: Target, board: str = "NAME") -> NoWheel:
    """Build the error for a runtime that nobody publishes for such a board."""
    found = f"no wheel of {' or '.join(_candidates(runtime, target))} for {target.words}"
    other = f"; or give a wheel of your own: edgessl devices setup {board} --wheel FILE"
    if target.libc == "musl":
        step = "no runtime is published for musl; give the board a system with glibc, for "
        step += "example Debian (in a container will do), and add that as a board of its own"
    elif target.machine.startswith("arm") and runtime != "litert":
        step = "it is published for 64 bits only: put a 64-bit system on the board, or use "
        step += f"LiteRT: edgessl devices setup {board} --runtime litert"
    elif target.machine.startswith("arm"):
        step = "for 32-bit ARM there is only tflite-runtime 2.14 for Python 3.8 to 3.11 and glibc "
        step += "2.34 (Raspberry Pi OS 12): use that, or put a 64-bit system on the board"
    elif there := offered(runtime, target):
        step = f"on this system there are wheels for Python {', '.join(there)}: install one of "
        step += "these beside python3 on the board and name it: edgessl devices add ... --python "
        step += f"/path/to/python{there[0]}"
    else:
        step = "a newer release of its system has a newer C library and Python"
    return NoWheel(found, hint=step + other)


def offered(runtime: str, target: Target) -> list[str]:
    """Return other versions of Python, near ones first, for which there are wheels."""

    def distance(python: str) -> int:
        return abs(two_numbers(python)[1] - target.python[1])

    found = []
    for python in sorted(OTHER_PYTHONS, key=distance):
        if python == target.python_text:
            continue
        for package in _candidates(runtime, target):
            try:
                pip("index", "versions", package, *target.options(python))
            except NoWheel:
                continue
            found.append(python)
            break
        if len(found) == 2:  # enough to choose from
            break
    return found


def download(requirement: str, target: Target, folder: Path) -> None:
    """Fetch the newest wheel of one package for a board.

    Raises:
        NoWheel: There is none; without a hint.
        EdgeSSLError: The index cannot be reached, or pip failed.
    """
    pip("download", "--no-deps", "--dest", str(folder), *target.options(), requirement)


def pip(*arguments: str) -> str:
    """Run this machine's pip and return what it printed.

    Raises:
        MissingExtra: There is no pip beside this Python.
        NoWheel: It found nothing that fits.
        EdgeSSLError: Another failure.
    """
    if find_spec("pip") is None:
        raise MissingExtra(
            "the Python that runs edgessl has no pip, which fetches the wheels",
            hint=f"{sys.executable} -m ensurepip",
        )
    command = [sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check",
               "--no-color", "--retries", "2", *arguments]  # fmt: skip
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PIP_TIME_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise EdgeSSLError(
            f"pip {arguments[0]} did not end within {PIP_TIME_S:g} s", hint="try again"
        ) from None
    said = done.stderr.decode("utf-8", "replace")
    if done.returncode == 0:
        return done.stdout.decode("utf-8", "replace")
    last = [line for line in said.splitlines() if line.startswith("ERROR:")][-2:]
    if any(sign in said.lower() for sign in OFFLINE):
        raise EdgeSSLError(
            f"the package index cannot be reached: {_short(last or said.splitlines()[-1:])}",
            hint="connect this machine to the network or to your mirror (pip config); the board "
            "needs neither",
        )
    if "No matching distribution found" in said or "not a supported wheel" in said:
        raise NoWheel(_short(last))
    raise EdgeSSLError(f"pip {arguments[0]} failed: {_short(last or said.splitlines()[-2:])}")


def numpy_requirement(wheel: Path) -> str:
    """Return what a wheel says about numpy, with the bound that its metadata lacks.

    Lines with a condition are left out: they bound old releases of Python, for which the newest
    numpy is old, too.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)]
        text = archive.read(names[0]).decode("utf-8", "replace") if names else ""
    bounds = [NUMPY_BOUND.get(distribution(wheel), "")]
    said = re.findall(r"(?im)^requires-dist:\s*numpy\s*\(?([^;)\n]*)\)?\s*$", text)
    bounds += [bound.replace(" ", "") for bound in said]
    return "numpy" + ",".join(filter(None, bounds))


def _fetch_given(path: Path, target: Target, folder: Path) -> None:
    if not path.is_file() or not distribution(path):
        raise FileInvalid(f"{path} is not a wheel", hint="name a file that ends in .whl")
    try:
        download(str(path.resolve()), target, folder)
    except NoWheel:
        raise FileInvalid(
            f"{path.name} is not made for this board: {target.words}",
            hint=f"its tags must be among cp{target.python_text.replace('.', '')} and "
            f"{', '.join(target.tags()[:3])}, ..., {target.tags()[-1]}",
        ) from None


def _fetch_numpy(package: str, target: Target, folder: Path) -> None:
    wheel = next(path for path in folder.glob("*.whl") if distribution(path) == package)
    wanted = numpy_requirement(wheel)
    try:
        download(wanted, target, folder)
    except NoWheel:
        bound = NUMPY_BOUND.get(package, "")
        if target.numpy and (not bound or target.numpy.startswith("1.")):
            return  # that of the board's system
        raise NoWheel(
            f"no wheel of {wanted} for {target.words}, and the board has "
            f"{f'numpy {target.numpy}' if target.numpy else 'none'}",
            hint="on the board: sudo apt-get install python3-numpy"
            + (" (on Debian 12 and Raspberry Pi OS 12 it is 1.24)" if bound else ""),
        ) from None


def _candidates(runtime: str, target: Target) -> tuple[str, ...]:
    """Return the packages to try: one with CUDA only where the board can use it."""
    packages = RUNTIMES[runtime].packages
    if runtime == "onnxruntime":
        return ("onnxruntime-gpu",) if (target.jetpack or 0) >= 7 else packages[:1]
    return packages


def _short(lines: Sequence[str]) -> str:
    return " ".join(line.removeprefix("ERROR: ") for line in lines)[:300]
