r"""What we run in a board's shell, and the one place where strings are quoted for it.

The scripts are constants of POSIX ``sh``; what differs is handed over as quoted arguments. Around
them the login shell may be any (dash, bash, busybox, fish, csh): it only ever sees one word in
single quotes without a character that some shell treats as special there.

Login files may print whatever they like, so every answer is a line of its own that begins with a
random word of the session:

==================  ======  ===========================================================
``W ready PATH``    output  the keeper has made the work folder
``W begin ID``      output  what follows is the program's own; ``ID`` is for ``stop``
``W begin``         errors  what follows is the program's own
``W end STATUS``    errors  the program ended; without this line the connection was lost
``W gone``          errors  the work folder is not there any more
``W have``          output  a file with this content is in place
``W done WORD``     errors  how a transfer ended
==================  ======  ===========================================================
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from edgessl.core.errors import EdgeSSLError

SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _./=:,@%+-")


def command(script: str, *arguments: str) -> str:
    """Return ``script`` with its ``$1``, ``$2``, ... as a command for any login shell.

    Raises:
        EdgeSSLError: An argument holds a NUL, which no program can be given.
    """
    if any("\0" in argument for argument in arguments):
        raise EdgeSSLError(f"an argument holds a NUL character: {arguments!r}")
    text = f"set -- {shlex.join(arguments)}\n{script}"
    # a backslash in single quotes is special to fish, "!" and a line end to csh: all are encoded,
    # and "\0" before digits is what is left to every shell as it is
    coded = "".join(chr(c) if c in SAFE else f"\\0{c:03o}" for c in os.fsencode(text))
    return f'exec /bin/sh -c \'eval "$(printf %b "{coded}")"\''


def leading(script: str, *arguments: str) -> str:
    """Return such a command whose shell leads a process group, so that all of it can be ended.

    OpenSSH's server sees to that, Dropbear does not.
    """
    return command(f"script={shlex.quote(OWN_ID + script)}\n{OWN_ID}{LEAD}", *arguments)


def program(argv: Sequence[str]) -> list[str]:
    """Return ``argv`` so that ``exec`` takes its first word for a program, never an option."""
    return [f"./{argv[0]}" if argv[0].startswith("-") else argv[0], *argv[1:]]


# own_id: the number and moment of this process, nothing when it does not lead its group
OWN_ID = r"""
own_id() {
    { read -r stat <"/proc/$$/stat"; } 2>/dev/null || return 0
    set -- ${stat##*) }
    [ "$3" != $$ ] || echo "$$.${20}"
}
"""
LEAD = r"""
[ -n "$(own_id)" ] || ! command -v setsid >/dev/null || exec setsid /bin/sh -c "$script" sh "$@"
eval "$script"
"""

# since PID: the moment at which a process started, in ticks since boot. With the number it names
# one process for good; nothing is ever killed by a number alone, as numbers come again.
SINCE = r"""
since() {
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    set -- ${stat##*) }
    echo "${20}"
}
"""

# $1 word, $2 name of the work folder, $3 seconds after which a silent workstation counts as gone
KEEPER = (
    SINCE
    + r"""
word=$1 home=$HOME/.edgessl work=$HOME/.edgessl/$2 silence=$3 watch=
umask 077
LC_ALL=C
export LC_ALL

alive() { now=$(since "${1%%.*}") && [ "$now" = "${1#*.}" ]; }

signal() { # NAME ID: the whole group, or the program where there is no group
    alive "$2" || return 1
    kill "-$1" "-${2%%.*}" 2>/dev/null || kill "-$1" "${2%%.*}" 2>/dev/null
    return 0
}

signal_all() { # NAME: false when nothing runs any more
    some=1
    for run in "$work"/.runs/*.*; do
        signal "$1" "${run##*/}" && some=0
    done
    return $some
}

finish() {
    trap '' HUP INT TERM PIPE
    # what lost its input ends by itself; what does not is made to
    signal_all TERM && sleep 1 && signal_all TERM && sleep 1 && signal_all KILL
    rm -rf "$work"
    [ ! -e "$work" ] || { sleep 1; rm -rf "$work"; }
    if [ -n "$(own_id)" ]; then kill -KILL 0; else kill "$watch"; fi
}

# A connection can die without a word; then nobody closes our input. A shell that waits for a line
# is not scheduled: its count of switches stands still until the next sign of life.
silent() {
    while read -r key value; do
        [ "$key" != voluntary_ctxt_switches: ] || break
    done <"/proc/$$/status"
    [ -n "$value" ] && [ "$value" = "$1" ]
}

mind() {
    value=
    while sleep "$silence"; do
        ! silent "$value" || { kill -TERM $$; exit; }
    done
}

mkdir -p "$work/.runs" || { rm -rf "$work"; exit 1; }
chmod 700 "$home"
host=$(uname -n)
for old in "$home"/work-*; do # left by a power cut
    { read -r name keeper <"$old/.keeper"; } 2>/dev/null || continue
    [ "$name" != "$host" ] || alive "$keeper" || rm -rf "$old"
done
# by cat, which says why it cannot
echo "$host $$.$(since $$)" | cat >"$work/.keeper" || { rm -rf "$work"; exit 1; }

trap 'finish; exit 0' HUP INT TERM
mind </dev/null >/dev/null 2>&1 &
watch=$!
printf '\n%s ready %s\n' "$word" "$work"
while read -r verb id; do
    [ "$verb" != stop ] || signal KILL "$id"
done
finish
"""
)

# $1 word, $2 work folder, the rest: the program
RUN = r"""
word=$1 work=$2
shift 2
cd "$work" 2>/dev/null && [ -d .runs ] || { printf '\n%s gone\n' "$word" >&2; exit 1; }
id=$(own_id)
[ -z "$id" ] || { : >".runs/$id"; } 2>/dev/null
printf '\n%s begin %s\n' "$word" "$id"
printf '\n%s begin\n' "$word" >&2
trap : HUP INT TERM # the group is known by this shell, which must outlive the program
(exec "$@")
status=$?
printf '\n%s end %s\n' "$word" "$status" >&2
[ -z "$id" ] || kill -KILL 0 # this shell, and what the program left running
"""

DIGEST = r"""
umask 077
LC_ALL=C
export LC_ALL
digest() {
    if command -v sha256sum >/dev/null; then
        sum=$(sha256sum <"$1") || return 1
    else
        sum=$(python3 -c 'if True:
            import hashlib, sys
            sums = hashlib.sha256()
            for block in iter(lambda: sys.stdin.buffer.read(1 << 20), b""):
                sums.update(block)
            print(sums.hexdigest())' <"$1") || return 1
    fi
    echo "${sum%% *}"
}
"""

# $1 word, $2 work folder, $3 target, $4 SHA-256
CHECK = (
    DIGEST
    + r"""
cd "$2" 2>/dev/null || exit 1
[ ! -f "$3" ] || [ "$(digest "$3")" != "$4" ] || printf '\n%s have\n' "$1"
"""
)

# $1 word, $2 work folder, $3 target, $4 SHA-256, $5 bytes; the content comes on standard input
PUT = (
    DIGEST
    + r"""
word=$1 target=$3
printf '\n%s begin\n' "$word" >&2
say() { printf '\n%s done %s\n' "$word" "$1" >&2; exit 0; }
cd "$2" 2>/dev/null && [ -d .runs ] || { printf '\n%s gone\n' "$word" >&2; exit 0; }
mkdir -p "${target%/*}/" || say failed
[ ! -d "$target" ] || say folder
part=$target.part
cat >"$part" || { rm -f "$part"; say failed; }
size=$(wc -c <"$part")
[ "$size" -eq "$5" ] || { rm -f "$part"; say cut; }
sum=$(digest "$part") || { rm -f "$part"; say nothing-for-sha256; }
[ "$sum" = "$4" ] || { rm -f "$part"; say damaged; }
mv -f "$part" "$target" || { rm -f "$part"; say failed; }
say ok
"""
)

# $1 word, $2 work folder, $3 source
GET = (
    DIGEST
    + r"""
word=$1
printf '\n%s begin\n' "$word" >&2
say() { printf '\n%s done %s\n' "$word" "$1" >&2; exit 0; }
cd "$2" 2>/dev/null || { printf '\n%s gone\n' "$word" >&2; exit 0; }
[ -f "$3" ] || say missing
sum=$(digest "$3") || say nothing-for-sha256
printf '\n%s begin %s\n' "$word" "$(wc -c <"$3")"
cat "$3" || say failed
say "ok-$sum"
"""
)

# $1 word, $2 work folder, $3 target
REMOVE = r"""
printf '\n%s begin\n' "$1" >&2
cd "$2" 2>/dev/null || { printf '\n%s gone\n' "$1" >&2; exit 0; }
LC_ALL=C
export LC_ALL
rm -rf "$3" && printf '\n%s done ok\n' "$1" >&2
"""
