"""The file of boards that ``edgessl devices add`` writes, and what ``--device`` means.

``~/.config/edgessl/boards.toml``::

    [boards.kitchen]
    kind = "rpi"
    address = "ssh://pi@raspberrypi.local"
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from edgessl.core import files
from edgessl.core.errors import FileInvalid, UsageProblem, nearest
from edgessl.devices import DEVICES
from edgessl.devices.base import Board

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
KEYS = tuple(field.name for field in fields(Board) if field.name != "name")
# how a machine names itself to the kernel, for the kinds that this machine can be
MODELS = {"rpi": "raspberry pi", "jetson": "jetson"}
MODEL_FILES = ("/proc/device-tree/model", "/sys/firmware/devicetree/base/model")


def boards_file() -> Path:
    """Return where the boards are kept: ``EDGESSL_BOARDS``, else the user's configuration."""
    if named := os.environ.get("EDGESSL_BOARDS"):
        return Path(named)
    # the XDG rule: a relative path there is to be ignored
    base = Path(os.environ.get("XDG_CONFIG_HOME") or "")
    return (base if base.is_absolute() else Path.home() / ".config") / "edgessl" / "boards.toml"


def added_boards(path: Path | None = None) -> dict[str, Board]:
    """Return the boards of the file by name, in its order; none without a file.

    Raises:
        FileInvalid: Not TOML, a wrong key, kind or type; names the place and the nearest key.
    """
    path = path or boards_file()
    return _parse(_read(path), path)


def add_board(board: Board, path: Path | None = None) -> None:
    """Write a board into the file; what else is in the file stays as it is.

    Raises:
        UsageProblem: The name is taken or unfit, or there is no such kind.
        FileInvalid: The file that is there cannot be read.
    """
    path = path or boards_file()
    check_name(board.name)
    DEVICES[board.kind]
    text = _read(path)
    if board.name in _parse(text, path):
        raise UsageProblem(
            f"a board called '{board.name}' is there already",
            hint=f"choose another name, or first: edgessl devices remove {board.name}",
        )
    given = ((key, getattr(board, key)) for key in KEYS)
    lines = [f"{key} = {_quoted(value)}\n" for key, value in given if value]
    block = "".join([_header(board.name), *lines])
    _write(path, f"{text.rstrip()}\n\n{block}" if text.strip() else block)


def remove_board(name: str, path: Path | None = None) -> Board:
    """Take a board out of the file and return it; the rest of the file stays as it is.

    Raises:
        UsageProblem: No such board.
        FileInvalid: The file cannot be read, or is laid out so that the board's lines are not
            found in it.
    """
    path = path or boards_file()
    text = _read(path)
    boards = _parse(text, path)
    removed = _named(name, boards)
    header = rf"^[ \t]*\[[ \t]*boards[ \t]*\.[ \t]*[\"']?{re.escape(name)}[\"']?[ \t]*\]"
    to_the_next = rf"{header}.*?(?=^[ \t]*\[|\Z)"
    kept = re.sub(to_the_next, "", text, count=1, flags=re.MULTILINE | re.DOTALL)
    del boards[name]
    try:
        whole = _parse(kept, path) == boards
    except FileInvalid:
        whole = False
    if not whole:
        raise FileInvalid(
            f"the lines of '{name}' are not where expected in {path}",
            hint=f"remove them by hand, or write them as [boards.{name}]",
        )
    _write(path, kept)
    return removed


def check_name(name: str) -> None:
    """Refuse what cannot name a board.

    Raises:
        UsageProblem: Not ``[a-z0-9._-]+``, or the name of a kind, which ``--device`` takes too.
    """
    if not NAME.fullmatch(name):
        raise UsageProblem(
            f"{name!r} cannot name a board",
            hint="small letters, digits, '.', '_' and '-', beginning with a letter or digit",
        )
    if name in DEVICES.entries:
        raise UsageProblem(
            f"'{name}' is a kind of board", hint=f"choose another name, for example my-{name}"
        )


def resolve(device: str, address: str | None = None, python: str | None = None) -> Board:
    """Return the board that ``--device`` means.

    A name of ``devices add``, or a kind: at the address given, else this machine when it is one,
    else the one added board of that kind.

    Args:
        device: Kind of board or name of an added one.
        address: Takes the place of the board's own.
        python: The interpreter there; takes the place of the board's own.

    Raises:
        UsageProblem: No such kind or board, or a kind without an address that this machine is
            not, and that no or several boards were added of.
        FileInvalid: The file of boards cannot be read.
    """
    boards = added_boards()
    if device in boards:
        found = boards[device]
    elif device not in DEVICES.entries:
        raise UsageProblem(
            f"no kind of board and no added board is called '{device}'",
            hint=f"{nearest(device, [*DEVICES.entries, *boards])}; see: edgessl devices list",
        )
    elif address or needs_no_address(device) or is_this_machine(device):
        found = Board(device)
    else:
        found = _only(device, boards)
    found = replace(found, address=address or found.address, python=python or found.python)
    refuse_address(found)
    return found


def refuse_address(board: Board) -> None:
    """Refuse an address for this machine, which would be measured in place of what is there.

    Raises:
        UsageProblem: The hint names a kind that has an address.
    """
    if board.kind == "local" and board.address:
        raise UsageProblem(
            f"'local' is this machine and has no address; '{board.address}' was given",
            hint="--device ssh (or --kind ssh), rpi, jetson or android for a board elsewhere",
        )


def needs_no_address(kind: str) -> bool:
    """Whether a kind is reached without saying where it is."""
    return str(DEVICES[kind].facts.get("address", "")).startswith("none")


def is_this_machine(kind: str) -> bool:
    """Whether this machine is a board of that kind, by what the kernel calls it."""
    if kind not in MODELS:
        return False
    for name in MODEL_FILES:
        try:
            model = Path(name).read_bytes()[:200].decode("utf-8", "replace")
        except OSError:
            continue
        return MODELS[kind] in model.lower()
    return False


def add_line(kind: str, name: str = "NAME") -> str:
    """Return the command that adds a board of a kind, with a placeholder for its address."""
    address = "adb" if kind == "android" else "ssh://user@board"
    return f"edgessl devices add {name} --kind {kind} --address {address}"


def _only(kind: str, boards: Mapping[str, Board]) -> Board:
    same = [board for board in boards.values() if board.kind == kind]
    if len(same) == 1:
        return same[0]
    if same:
        raise UsageProblem(
            f"{len(same)} boards of the kind '{kind}' were added: "
            f"{', '.join(board.name for board in same)}",
            hint=f"name one: --device {same[0].name}",
        )
    raise UsageProblem(
        f"no address given, this machine is not of the kind '{kind}', and no board of it was added",
        hint=f"{add_line(kind)} (or give --address)",
    )


def _named(name: str, boards: Mapping[str, Board]) -> Board:
    if name not in boards:
        raise UsageProblem(
            f"no board called '{name}'",
            hint=f"{nearest(name, boards)}" if boards else f"none is added; {add_line('ssh')}",
        )
    return boards[name]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise FileInvalid(f"the file of boards {path} cannot be read: {error}") from error


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write_text(path, text)


def _parse(text: str, path: Path) -> dict[str, Board]:
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise FileInvalid(f"{path} is not TOML: {error}", hint=_hint(path)) from error
    _known(document, ("boards",), str(path), path)
    boards = document.get("boards", {})
    if not isinstance(boards, dict):
        raise FileInvalid(f"{path}: 'boards' is not a table", hint=_hint(path))
    return {name: _board(name, entry, path) for name, entry in boards.items()}


def _board(name: str, entry: object, path: Path) -> Board:
    where = f"{path}: [boards.{name}]"
    try:
        check_name(name)
    except UsageProblem as error:
        raise FileInvalid(f"{path}: {error.message}", hint=error.hint) from None
    if not isinstance(entry, dict):
        raise FileInvalid(f"{where} is not a table", hint=_hint(path))
    _known(entry, KEYS, where, path)
    for key, value in entry.items():
        if not isinstance(value, str) or not value.isprintable():
            raise FileInvalid(f"{where}: {key} = {value!r} is not a text", hint=_hint(path))
    if entry.get("kind") not in DEVICES.entries:
        raise FileInvalid(
            f"{where}: kind is {entry.get('kind')!r}",
            hint=nearest(entry.get("kind", ""), DEVICES.entries),
        )
    return Board(name=name, **entry)


def _known(table: Mapping[str, object], keys: tuple[str, ...], where: str, path: Path) -> None:
    for key in table:
        if key not in keys:
            raise FileInvalid(
                f"{where}: unknown key '{key}'", hint=f"{nearest(key, keys)}; in {path}"
            )


def _hint(path: Path) -> str:
    return f"mend {path}, or move it away and add the boards again"


def _header(name: str) -> str:
    return f"[boards.{_quoted(name) if '.' in name else name}]\n"


def _quoted(text: str) -> str:
    if not text.isprintable():
        raise UsageProblem(f"{text!r} has characters that cannot be printed")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
