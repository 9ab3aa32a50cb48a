"""Run a task in a process of its own, so that a crash in native code is a message.

Converters and runtimes print to file descriptor 1, leak a gigabyte, and now and then die from a
signal. The child's descriptors 1 and 2 go to a log; its answer comes back in a private file, so
nothing that a library prints can be taken for a result.

    python -m edgessl.stages.child JOB.json      JOB: {"task", "job", "parent"}
                                                 answer beside it: {"result"} or {"error"}
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from edgessl.core import errors, files
from edgessl.core.errors import (
    ConversionFailed,
    EdgeSSLError,
    Interrupted,
    NativeCrash,
    OutOfMemory,
    out_of_memory,
)

Task = Callable[[dict[str, Any]], dict[str, Any]]

PROGRAM = ("-m", "edgessl.stages.child")
POLL_S = 0.05
TAIL_LINES, TAIL_BYTES = 6, 8192
LOG_MB = 64  # a library that prints without end would fill the disk
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run_child(
    task: str,
    job: Mapping[str, Any],
    *,
    timeout_s: float,
    memory_mb: int | None = None,
    log: Path | None = None,
    program: Sequence[str] = PROGRAM,
) -> dict[str, Any]:
    """Run one task in a fresh interpreter and return its answer.

    SIGINT and SIGTERM stop the child while it runs, and so does the death of this process.

    Args:
        task: Name in the program's task table.
        job: What the task gets; JSON values.
        timeout_s: Wall-clock limit in seconds.
        memory_mb: Limit of the child's resident memory in MiB; None for no limit. (Address
            space cannot be limited: an accelerator build of torch reserves far more than it
            uses.)
        log: File that everything the child prints is appended to.
        program: What the interpreter starts; it must end in :func:`serve`.

    Raises:
        NativeCrash: The child died from a signal.
        ConversionFailed: It took too long, printed without end, or failed with an error that is
            not ours.
        OutOfMemory: It passed ``memory_mb`` or could not allocate.
        Interrupted: This process was asked to stop.
        EdgeSSLError: What the task raised, as the same class.
    """
    with tempfile.TemporaryDirectory(prefix="edgessl-") as name:
        folder = Path(name)
        path, printed = folder / "job.json", log or folder / "log.txt"
        path.write_text(json.dumps({"task": task, "job": dict(job), "parent": os.getpid()}))
        printed.parent.mkdir(parents=True, exist_ok=True)
        with _stoppable(task), printed.open("ab") as stream:
            start = stream.tell()
            # -P: a module of the same name in the current folder is not ours to import;
            # -u and faulthandler: a crash loses no output and shows where Python was
            process = subprocess.Popen(
                [sys.executable, "-P", "-u", "-X", "faulthandler", *program, str(path)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,  # its own process group, to be killed whole
            )
            try:
                _wait(task, process, timeout_s, memory_mb, lambda: _grown_mb(stream, start))
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        try:
            return _answer(task, process.returncode, folder / "answer.json", _tail(printed, start))
        except EdgeSSLError as error:
            if log and not error.hint:
                error.hint = f"all that it printed is in {log}"
            raise


def serve(tasks: Mapping[str, Task], argv: Sequence[str]) -> int:
    """Do the job in the file ``argv[1]`` and write the answer; return the exit status."""
    path = Path(argv[1])
    order = json.loads(path.read_text())
    _die_with(order["parent"])
    _leave_no_core_file()
    try:
        if order["task"] not in tasks:
            raise EdgeSSLError(f"no task '{order['task']}'; known: {', '.join(tasks)}")
        answer: dict[str, Any] = {"result": tasks[order["task"]](order["job"])}
    except Exception as error:  # noqa: BLE001  every failure is the parent's to report
        traceback.print_exc()
        answer = {"error": _explained(order["task"], error).as_dict()}
    (path.parent / "answer.json").write_text(json.dumps(answer))
    return 1 if "error" in answer else 0


def _explained(task: str, error: Exception) -> EdgeSSLError:
    if isinstance(error, EdgeSSLError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return files.explain_os_error(error, Path(error.filename or tempfile.gettempdir()))
    # native libraries report on many lines; the message is one
    text = f"'{task}' failed: {type(error).__name__}: {' '.join(str(error).split())}"
    if out_of_memory(error):
        return OutOfMemory(text, hint="free memory or use a smaller model or input size")
    return ConversionFailed(text)


def _die_with(parent: int) -> None:
    """Ask the kernel to end this process when its parent ends, however that happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the kernel was asked
            os.kill(os.getpid(), signal.SIGKILL)


def _leave_no_core_file() -> None:
    """Keep a crash from writing memory, the user's images in it, to wherever we were started."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


@contextmanager
def _stoppable(task: str) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into Interrupted, so that the child is stopped on the way out."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(f"stopped by {signal.Signals(number).name} while '{task}' ran")

    previous = {}
    if threading.current_thread() is threading.main_thread():  # only it may set handlers
        previous = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait(
    task: str, process: subprocess.Popen[bytes], timeout_s: float, memory_mb: int | None,
    printed_mb: Callable[[], float],
) -> None:  # fmt: skip
    """Wait for the end of the process, or raise for the limit it passes."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            process.wait(timeout=POLL_S)
        except subprocess.TimeoutExpired:
            pass
        else:
            return
        if time.monotonic() > deadline:
            raise ConversionFailed(
                f"'{task}' took longer than {timeout_s:g} s and was stopped",
                hint="run it again when the machine is less busy, or with a smaller model",
            )
        if printed_mb() > LOG_MB:
            raise ConversionFailed(f"'{task}' printed more than {LOG_MB} MiB and was stopped")
        if memory_mb is not None and (used := _resident_mb(process.pid)) > memory_mb:
            raise OutOfMemory(
                f"'{task}' used {used:.0f} MiB of memory, the limit is {memory_mb} MiB",
                hint="raise the limit, or use a smaller model or input size",
            )


def _grown_mb(stream: BinaryIO, start: int) -> float:
    """Return how much a file has grown since it had ``start`` bytes, in MiB."""
    return (os.fstat(stream.fileno()).st_size - start) / 2**20


def _resident_mb(pid: int) -> float:
    """Resident memory of a process in MiB; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _answer(task: str, status: int, path: Path, tail: str) -> dict[str, Any]:
    """Return the child's result, or raise what ended it."""
    said = f"; it printed last: {tail}" if tail else ""
    if status < 0:
        name = _signal_name(-status)
        if name == "SIGABRT" and out_of_memory(RuntimeError(tail)):  # std::bad_alloc, uncaught
            raise OutOfMemory(
                f"'{task}' could not allocate memory{said}",
                hint="free memory or use a smaller model or input size",
            )
        killed = name == "SIGKILL"
        raise NativeCrash(
            f"'{task}' was ended by {name}, a crash in native code{said}"
            if not killed
            else f"'{task}' was ended by SIGKILL from outside{said}",
            hint="most often the system ran out of memory; free some" if killed else "",
        )
    try:
        answer = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConversionFailed(
            f"'{task}' ended with status {status} and no answer{said}"
        ) from error
    if "result" in answer:
        return answer["result"]
    known = vars(errors).get(answer["error"]["type"], EdgeSSLError)
    raise known(answer["error"]["message"], hint=answer["error"]["hint"])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


def _tail(printed: Path, start: int) -> str:
    """Return the last lines that the child printed, without Python's own crash dump."""
    with printed.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(start, size - TAIL_BYTES))
        text = stream.read().decode(errors="replace")
    text = text.split("Fatal Python error:")[0]
    lines = [line.strip()[:200] for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-TAIL_LINES:])


if __name__ == "__main__":
    from edgessl.stages.conversion import TASKS

    sys.exit(serve(TASKS, sys.argv))
