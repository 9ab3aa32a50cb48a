"""A real browser that opens the page: Chromium without a window, as the stand-in of a phone's."""

import os
import shutil
import subprocess
from pathlib import Path

STANDIN = Path(os.environ.get("EDGESSL_STANDINS", "/var/lib/edgessl-standins")) / "browser"
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--no-proxy-server", "--enable-logging=stderr",
)  # fmt: skip


def missing() -> str:
    """Return why no browser can be used here; empty when one can."""
    if shutil.which("chromium") is None or not list(STANDIN.glob("npm/*.tgz")):
        return "run tests/standins/browser"
    return ""


class Chromium:
    """One Chromium, with a profile of its own.

    Args:
        profile: A new folder.
        options: Further ones of the command line.
    """

    def __init__(self, profile: Path, *options: str) -> None:
        self._argv = ["chromium", *OPTIONS, f"--user-data-dir={profile}", *options]
        self._profile, self._log = profile, profile.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def open(self, url: str) -> None:
        """Start it with a page."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._argv, url], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def tell(self, said: str) -> None:
        """Open the address in a line that a device tells, if there is one."""
        if "://" in said:
            self.open(said.strip())

    def kill(self) -> None:
        """End it as a phone that falls into water: it says nothing more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)

    def blocked(self) -> list[str]:
        """Return what the page wanted and was not given: by its policy, or as it was not there."""
        words = ("Content Security Policy", "Failed to load resource", "Refused to")
        lines = self._log.read_text("utf-8", "replace").splitlines()
        return [line for line in lines if any(word in line for word in words)]
