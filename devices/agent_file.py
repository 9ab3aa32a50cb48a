"""The agent as one file that a board's Python runs: a zip archive of its modules.

The same bytes every time, so that its hash names it: sorted names, one moment for all files, no
compression (whose bytes depend on the version of zlib).
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from functools import cache
from pathlib import Path

from edgessl.core import files

PACKAGE = Path(__file__).with_name("agents") / "edgessl_agent"
MAIN = "import sys\n\nfrom edgessl_agent.main import main\n\nsys.exit(main())\n"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a zip archive can say


@cache
def agent_file() -> Path:
    """Return the agent as a file; it is built on first use and lasts as long as this process."""
    path = Path(_folder().name) / "agent.pyz"
    path.write_bytes(agent_bytes())
    return path


@cache
def agent_sha256() -> str:
    """Return the hash of the agent."""
    return files.sha256_bytes(agent_bytes())


def agent_name() -> str:
    """Return how the agent is called on a board: a name that carries its content."""
    return f"agent-{agent_sha256()[:16]}.pyz"


def agent_bytes() -> bytes:
    """Return the archive."""
    members = {"__main__.py": MAIN.encode()}
    for source in PACKAGE.glob("*.py"):
        members[f"{PACKAGE.name}/{source.name}"] = source.read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, members[name])
    return buffer.getvalue()


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="edgessl-agent-")
