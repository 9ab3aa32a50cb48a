"""Every error a user can meet, with the exit code of the contract.

EdgeSSLError                 1  failure
├── DiskFull, OutOfMemory, NativeCrash, ConversionFailed, Diverged, Collapsed, MissingExtra    1
├── UsageProblem             2  unknown command, option or name on the command line
├── InvalidInput             3  recipe, data or file invalid
│   ├── RecipeInvalid
│   ├── DataInvalid
│   └── FileInvalid             truncated, wrong seal, or unsafe to open
├── BoardUnreachable         4
├── GateFailed               5  an accuracy or parity gate
├── MeasurementNotValid      6
├── NotProvable              7  says how many images it would take
└── Interrupted            130
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class EdgeSSLError(Exception):
    """A failure that is explained to the user.

    Args:
        message: Cause and the value seen, one sentence.
        hint: What to do about it; shown on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def as_dict(self) -> dict[str, object]:
        """Return the ``error`` object that ``--json`` prints."""
        return {
            "code": self.exit_code,
            "type": type(self).__name__,
            "message": self.message,
            "hint": self.hint,
        }


class DiskFull(EdgeSSLError):
    """No space is left where a result had to be written."""


class OutOfMemory(EdgeSSLError):
    """The process or the accelerator ran out of memory."""


class NativeCrash(EdgeSSLError):
    """A child process died from a signal inside native code."""


class ConversionFailed(EdgeSSLError):
    """A converter ended without a usable file."""


class Diverged(EdgeSSLError):
    """A training loss is no longer a finite number."""


class Collapsed(EdgeSSLError):
    """A pretraining gives nearly the same embedding to all images; state was saved."""


class MissingExtra(EdgeSSLError):
    """An optional dependency is not installed."""


class UsageProblem(EdgeSSLError):
    """The command line names something that does not exist."""

    exit_code = 2


class InvalidInput(EdgeSSLError):
    """Something the user handed over cannot be used."""

    exit_code = 3


class RecipeInvalid(InvalidInput):
    """The recipe has errors; the message lists all of them."""


class DataInvalid(InvalidInput):
    """No images, no labels where labels are needed, or splits that leak."""


class FileInvalid(InvalidInput):
    """A checkpoint or artifact is truncated, altered, or unsafe to open."""


class BoardUnreachable(EdgeSSLError):
    """The board did not answer."""

    exit_code = 4


class GateFailed(EdgeSSLError):
    """An exported file does not give the answers of the model it came from."""

    exit_code = 5


class MeasurementNotValid(EdgeSSLError):
    """A figure was taken, but it is not what it claims to be."""

    exit_code = 6


class NotProvable(EdgeSSLError):
    """The images given cannot decide; the message says how many would."""

    exit_code = 7


class Interrupted(EdgeSSLError):
    """The user or the system asked the program to stop; state was saved."""

    exit_code = 130


# how torch and the runtimes word a failed allocation, which they raise as a RuntimeError
ALLOCATION = (
    "out of memory", "not enough memory", "allocate memory", "failed to allocate",
    "defaultcpuallocator", "bad_alloc",
)  # fmt: skip


def out_of_memory(error: BaseException) -> OutOfMemory | None:
    """Return the error to tell when ``error`` is a failed allocation, else None."""
    text = " ".join(str(error).split())
    words = any(word in text.lower() for word in ALLOCATION)
    if not (isinstance(error, MemoryError) or words):
        return None
    return OutOfMemory(
        f"out of memory: {text[:200]}" if text else "out of memory",
        hint="free memory and go on with --resume, or start a new run with a smaller batch, "
        "width or imgsz",
    )


# which error a command with several ends with
WORST_FIRST = (130, 1, 3, 2, 4, 5, 6, 7)


def worst_of(errors: Sequence[EdgeSSLError]) -> EdgeSSLError:
    """Return the error that decides the exit code: the first of the worst kind."""
    return min(errors, key=lambda error: WORST_FIRST.index(error.exit_code))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the closest known name, else the list of names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
