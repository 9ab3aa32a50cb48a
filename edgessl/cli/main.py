"""Entry point: every error becomes one clear message and the exit code of the contract."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from typing import NoReturn

import typer

from edgessl.cli.app import app
from edgessl.cli.info import list_, schema
from edgessl.core.errors import (
    DiskFull,
    EdgeSSLError,
    Interrupted,
    OutOfMemory,
    UsageProblem,
)  # fmt: skip

__all__ = ["list_", "main", "schema"]


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments
    if as_json:
        _keep_stdout_clean()
    sys.exit(_run(arguments, as_json))


def _run(arguments: list[str], as_json: bool) -> int:
    try:
        code = app(args=arguments, prog_name="edgessl", standalone_mode=False)
    except typer.Exit as leave:
        return leave.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _tell(Interrupted("interrupted", hint="go on with --resume"), as_json)
    except EdgeSSLError as error:
        return _tell(error, as_json)
    except MemoryError:
        return _tell(OutOfMemory("out of memory", hint="use a smaller batch or imgsz"), as_json)
    except OSError as error:
        return _tell(_explained(error), as_json)
    except Exception as error:  # noqa: BLE001  (the last resort: no traceback for users)
        if hasattr(error, "format_message"):  # a usage error of the option parser
            return _tell(_usage(error, arguments), as_json)
        return _tell_bug(error, as_json)
    return code if isinstance(code, int) else 0


def _tell(error: EdgeSSLError, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps({"error": error.as_dict()}, ensure_ascii=False) + "\n")
    else:
        sys.stderr.write(f"error: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"hint: {error.hint}\n")
    return error.exit_code


def _explained(error: OSError) -> EdgeSSLError:
    where = f": {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no space left on the device{where}", hint="free space; then --resume")
    return EdgeSSLError(f"{error.strerror or error}{where}")


def _usage(error: Exception, arguments: list[str]) -> UsageProblem:
    message = str(error.format_message())  # type: ignore[attr-defined]
    pair = next((m for a in arguments if (m := re.fullmatch(r"([a-z_]+)=(.*)", a))), None)
    if pair:
        return UsageProblem(
            f"'{pair[0]}' is not an option", hint=f"write --{pair[1].replace('_', '-')} {pair[2]}"
        )
    named = re.match(r"Invalid value for '?(--[a-z-]+)", message)
    if named and named[1] in arguments[:-1]:
        seen = arguments[arguments.index(named[1]) + 1]
        message += "" if repr(seen) in message else f" (got {seen!r})"
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "edgessl"
    return UsageProblem(message.rstrip("."), hint=f"see: {command} --help")


def _tell_bug(error: Exception, as_json: bool) -> int:
    """Report a mistake of ours: short for people, whole in a file."""
    import tempfile
    import traceback
    from pathlib import Path

    handle, name = tempfile.mkstemp(prefix="edgessl-error-", suffix=".txt")
    os.close(handle)
    Path(name).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    hint = f"this is a bug of edgessl; please report it with {name}"
    return _tell(EdgeSSLError(f"{type(error).__name__}: {error}", hint=hint), as_json)


def _keep_stdout_clean() -> None:
    """Send what native libraries print on descriptor 1 to stderr; ours goes to the real one."""
    real = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(real, "w", encoding="utf-8")
