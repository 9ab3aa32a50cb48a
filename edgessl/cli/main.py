"""Entry point: every error becomes one clear message and the exit code of the contract."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from edgessl.cli.output import keep_stdout_clean, write_document
from edgessl.core.errors import (
    DiskFull,
    EdgeSSLError,
    Interrupted,
    UsageProblem,
    out_of_memory,
)  # fmt: skip

AGAIN_S = 0.1
# a closed terminal too: boards are left clean, and temporary folders here
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # threads that spin while they wait make training many times slower on a busy machine
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    as_json = "--json" in arguments
    if as_json:
        keep_stdout_clean()
    sys.exit(_run(arguments, as_json, _stop_on_signals()))


class _Interruption(KeyboardInterrupt):
    """A signal; a class of its own, as Python ends by SIGINT after some KeyboardInterrupts."""


class _Stop:
    """Whether a signal came, and whether it still has something to stop."""

    def __init__(self) -> None:
        self.signal, self.ended = "", False

    def end(self) -> None:
        """Ignore signals from now on."""
        self.ended = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def as_error(self) -> Interrupted:
        by = f" by {self.signal}" if self.signal else ""
        return Interrupted(f"interrupted{by}", hint="go on with --resume")


def _stop_on_signals() -> _Stop:
    """Raise on SIGINT, SIGTERM and SIGHUP until the command has ended; later they are ignored.

    Native code that calls Python may swallow an exception, and aborts the process when one hits
    its import. So a signal waits for imports, and comes again until it unwinds the command.
    Training and child processes have handlers of their own while they run.
    """
    stop = _Stop()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if stop.ended:
            return
        stop.signal = signal.Signals(number).name
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        if not _importing(frame) and not _unwinding():
            raise _Interruption  # not Interrupted, which an "except Exception" would swallow

    if threading.current_thread() is threading.main_thread():  # only it may set handlers
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, interrupt)
    return stop


def _importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _unwinding() -> bool:
    """Whether this runs in a finally or except block that an interruption went through."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, _Interruption):
        error = error.__context__
    return error is not None


def _run(arguments: list[str], as_json: bool, stop: _Stop) -> int:
    try:
        # here, as a signal during these imports must be told too
        from edgessl.cli import bench, data, delivery, devices, export, info, look, start  # noqa: F401  (their commands)
        from edgessl.cli.app import Told, app

        try:
            code = app(args=arguments, prog_name="edgessl", standalone_mode=False)
        except Told as told:
            code = told
        stop.end()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (no traceback for users)
        stop.end()
        if type(error).__name__ == "NoArgsIsHelpError":  # the help is told already
            return UsageProblem.exit_code
        return _tell(_explained(error, arguments, stop), as_json)
    if isinstance(code, Told):
        return code.exit_code
    if code == Interrupted.exit_code:  # what Typer makes of KeyboardInterrupt, without a word
        return _tell(stop.as_error(), as_json)
    return code if isinstance(code, int) else 0


def _tell(error: EdgeSSLError, as_json: bool) -> int:
    with suppress(BrokenPipeError):
        if as_json:
            write_document({"error": error.as_dict()})
        else:
            hint = f"hint: {error.hint}\n" if error.hint else ""
            sys.stderr.write(f"error: {error.message}\n{hint}")
    return error.exit_code


def _explained(error: BaseException, arguments: list[str], stop: _Stop) -> EdgeSSLError:
    """Return the error to tell for whatever ended a command."""
    if isinstance(error, Interrupted):
        return error
    # native code that a signal hits may raise an error of its own instead
    if stop.signal or isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return stop.as_error()
    if isinstance(error, EdgeSSLError):
        return error
    if isinstance(error, OSError) and error.errno != errno.ENOMEM:
        where = f": {error.filename}" if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskFull(f"no space left on the device{where}", hint="free space; then --resume")
        return EdgeSSLError(f"{error.strerror or error}{where}")
    if hasattr(error, "format_message"):  # a usage error of the option parser
        return _usage(error, arguments)
    return out_of_memory(error) or _bug(error)


def _usage(error: BaseException, arguments: list[str]) -> UsageProblem:
    message = str(error.format_message())  # type: ignore[attr-defined]
    pair = next((m for a in arguments if (m := re.fullmatch(r"([a-z_]+)=(.*)", a))), None)
    if pair:
        return UsageProblem(
            f"'{pair[0]}' is not an option", hint=f"write --{pair[1].replace('_', '-')} {pair[2]}"
        )
    named = re.match(r"Invalid value for '?(--[a-z-]+)", message)
    if named and named[1] in arguments[:-1]:
        seen = arguments[arguments.index(named[1]) + 1]
        message += "" if seen in message else f" (got {seen!r})"
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "edgessl"
    return UsageProblem(message.rstrip("."), hint=f"see: {command} --help")


def _bug(error: BaseException) -> EdgeSSLError:
    """Report a mistake of ours: short for people, whole in a file."""
    import tempfile
    import traceback
    from pathlib import Path

    handle, name = tempfile.mkstemp(prefix="edgessl-error-", suffix=".txt")
    os.close(handle)
    Path(name).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    hint = f"this is a bug of edgessl; please report it with {name}"
    return EdgeSSLError(f"{type(error).__name__}: {error}", hint=hint)
