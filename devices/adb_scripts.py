"""What we run in a phone's shell of our own, and the one place where words are quoted for it."""

from __future__ import annotations

from collections.abc import Sequence

HOME = "/data/local/tmp/edgessl"
# clocks that a phone can keep up; the mode outlives us, so what asks for it lays this file into
# the work folder first, and the keeper undoes it
FIXED = ("cmd", "power", "set-fixed-performance-mode-enabled")
FIXED_MARK = "fixed-performance"
# A work folder is named by the shell that keeps it; those of shells that are gone are removed, and
# half copies when nobody else may be at work on them. HUP may come at any time after the end of
# the input: what undoes must not hear it.
KEEPER = """
umask 077; mkdir -p {home} && cd {home} || exit 73
undo() {{
  [ ! -e "$1/{fixed_mark}" ] ||
    (trap '' HUP INT TERM PIPE; {fixed} false) </dev/null >/dev/null 2>&1
}}
others=
for old in work-*; do pid=${{old#work-}}; pid=${{pid%%-*}}
  if kill -0 "$pid" 2>/dev/null; then others=1; else undo "$old"; rm -rf "$old"; fi; done
[ -n "$others" ] || rm -rf ./*.part ./python-*.tar
here=$(pwd)/work-$$-{token}; mkdir "$here" || exit 73
trap : HUP INT TERM PIPE; echo {mark} "$here"; exec >/dev/null 2>&1
cat; undo "$here"; rm -rf "$here"
(sleep 1; rm -rf "$here") </dev/null &
"""
# sha256sum came with Android 8; before, the sum that is there
SUM = 'sum() { sha256sum "$1" 2>/dev/null || md5sum "$1"; }; '


def keeper(home: str, token: str, mark: str) -> str:
    """Return the script that keeps a work folder until its input ends, and then cleans up.

    Args:
        home: Absolute folder that stays.
        token: Makes the name of the work folder one that nobody else has.
        mark: Word before the line with the absolute path of the work folder.
    """
    return KEEPER.format(
        home=quoted(home), token=token, mark=mark, fixed=joined(FIXED), fixed_mark=FIXED_MARK
    )


def quoted(text: str) -> str:
    """Return one word for the phone's shell, whatever it holds, also ``NAME=value``."""
    return "'" + text.replace("'", "'\\''") + "'"


def joined(argv: Sequence[str]) -> str:
    """Return a command line whose words the phone's shell takes as they are."""
    return " ".join(map(quoted, argv))
