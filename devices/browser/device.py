"""A browser that runs the very file: orders go to its page, what it says is judged like a board."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

from edgessl.core import files
from edgessl.core.archives import read_npz
from edgessl.core.errors import (
    BoardUnreachable,
    EdgeSSLError,
    MissingExtra,
    UsageProblem,
)
from edgessl.devices import events, protocol, record
from edgessl.devices.base import Board, Progress
from edgessl.devices.browser import packages
from edgessl.devices.browser.heard import check_run, facts_of
from edgessl.devices.browser.listening import listen
from edgessl.devices.browser.reach import Visit, place_of
from edgessl.devices.browser.state import TRAITS
from edgessl.devices.conversation import Sources, timing_of

if TYPE_CHECKING:
    from edgessl.devices.events import Run
    from edgessl.devices.protocol import Preset

PAGE = Path(__file__).parents[1] / "agents" / "page"
OPEN_S = 600.0  # until somebody opens the page


def to_stderr(line: str) -> None:
    """Show a line that the user must see: without it nobody opens the page."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class BrowserDevice:
    """A browser on this machine, on the network, or on a phone behind adb.

    One page serves all benches of this object; each run gets a new worker in it.

    Args:
        board: Its address says where the browser is, see ``reach.place_of``.
        tell: Gets the address of the page, and the code that a phone reads.
        open_s: How long it may take until the page is opened.

    Raises:
        UsageProblem: The address means nothing.
    """

    kind = "browser"
    traits = TRAITS

    def __init__(self, board: Board, tell: Progress = to_stderr, open_s: float = OPEN_S) -> None:
        self.board, self.tell, self.open_s = board, tell, open_s
        self._place = place_of(board.address)
        self._visit: Visit | None = None
        self._failure = ""

    @property
    def id(self) -> str:
        """Device or system, browser and six digits that tell different browsers apart."""
        facts = self.facts()
        words = f"{self.board.name or facts['board'] or facts['cpu']} {facts['browser']}"
        slug = "-".join(re.findall(r"[a-z0-9]+", words.lower()))[:40].strip("-")
        return f"{slug or 'browser'}-{facts['cores']}c-{facts['host_hash']}"

    def facts(self) -> Mapping[str, Any]:
        """Wait until the page is open, and return what it tells about its browser; asked once.

        Raises:
            MissingExtra: The runtimes of the page are not set up.
            BoardUnreachable: Nobody opened the page, or the address cannot be served.
        """
        return self._facts

    def measure(
        self, plan: dict[str, Any], sources: Sources, preset: Preset, say: Progress
    ) -> list[Run]:
        """Let the browser run the plan once per repeat, each in a new worker of the page.

        Raises:
            UsageProblem: The plan asks for what a browser cannot do.
            BoardUnreachable: The page was closed or fell silent.
            OutOfMemory, FileInvalid, DataInvalid, EdgeSSLError: It failed, and says why; or it said
                what it cannot have.
        """
        _check_plan(plan)
        classes = read_npz(sources.golden, ["expected"])["expected"].shape[1]
        what = _title(sources, plan)
        offered = self._offer(plan["runtime"], sources)
        runs: list[Run] = []
        try:
            for repeat in range(1, preset.repeats + 1):
                say(f"run {repeat} of {preset.repeats} on {self.id}")
                full = plan | offered | {"timing": timing_of(preset, runs), "score": repeat == 1}
                title = f"Run {repeat} of {preset.repeats}"
                order = {"do": "bench", "title": title, "model": what, "plan": full}
                line = self._page.server.line
                runs.append(listen(line, line.say(order), full, (self.id, self._facts), say))
                check_run(runs[-1], classes)
                if not events.last(runs[-1], "golden")["ok"]:
                    break  # wrong once is wrong; timing it again says nothing
            self._show(runs, preset, plan)
            self._failure = ""
        except EdgeSSLError as error:
            self._failure = str(error)
            self._page.server.line.say({"do": "wait", "text": f"The run failed: {error}"})
            raise
        finally:
            self._withdraw()
        return runs

    def close(self) -> None:
        """Tell the page that it may be closed, and stop serving it; called twice is fine."""
        visit, self._visit = self._visit, None
        self.__dict__.pop("_facts", None)
        if visit is None:
            return
        line = visit.server.line
        text = self._failure or "You can close this page."
        line.wait_until_fetched(line.say({"do": "end", "text": text, "ok": not self._failure}))
        visit.close()

    @property
    def _page(self) -> Visit:
        if self._visit is None:
            for runtime in packages.RUNTIMES:
                if absent := packages.missing(runtime):
                    raise MissingExtra(
                        f"the runtimes of the page are not set up: {', '.join(absent)}",
                        hint=packages.SETUP,
                    )
            self._visit = Visit(self._place, self.tell)
            for path in PAGE.iterdir():
                self._visit.server.offer(path.name, path)
        return self._visit

    @cached_property
    def _facts(self) -> dict[str, Any]:
        line, until = self._page.server.line, time.monotonic() + self.open_s
        while (left := until - time.monotonic()) > 0:
            with suppress(Empty):
                for event in line.posts.get(timeout=min(left, 1.0)):
                    if event["k"] == "facts":
                        found = facts_of(event) | {"page_sha256": _page_sha256()}
                        self.tell(f"connected: {found['browser']} on {found['cpu']}")
                        return found
        self.close()
        raise BoardUnreachable(
            f"no browser opened the page within {self.open_s:.0f} s",
            hint="bench again, and open the address that is printed",
        )

    def _offer(self, runtime: str, sources: Sources) -> dict[str, Any]:
        """Serve what the run needs; return the names under which the page finds it."""
        server, folder = self._page.server, "run"
        for name, data in packages.runtime_files(runtime).items():
            server.offer(f"{folder}/runtime/{name}", data)

        def file(name: str, path: Path) -> dict[str, Any]:
            return {"url": server.offer(f"{folder}/{name}", path), "bytes": path.stat().st_size}

        first, *others = sources.artifact.files
        model = [
            file(f"model-{i}", sources.folder / name) | {"name": name}
            for i, name in enumerate((first, *others))
        ]
        golden, pack = file("golden.npz", sources.golden), file("pack.npz", sources.pack)
        packed = f"{folder}/runtime/"
        return {"model": model, "golden": golden, "pack": pack, "packages": packed}

    def _withdraw(self) -> None:
        server = self._page.server
        server.withdraw([name for name in server.files if name.startswith("run/")])

    def _show(self, runs: list[Run], preset: Preset, plan: Mapping[str, Any]) -> None:
        """Show verdict and figures on the page."""
        judged = protocol.judge(
            runs, preset, provider=plan["provider"], precision=plan["precision"], traits=TRAITS
        )
        latency = record.latencies(runs)
        shown = (
            ("infer", "p50", "One inference, p50"),
            ("infer", "p90", "One inference, p90"),
            ("e2e_from_uint8", "p50", "From picture to answer, p50"),
        )
        values = [(text, getattr(latency.get(part), name, None)) for part, name, text in shown]
        figures = [[text, f"{value:.3g} ms"] for text, value in values if value is not None]
        line = self._page.server.line
        line.wait_until_fetched(
            line.say(
                {"do": "show", "verdicts": judged.verdicts, "reasons": judged.reasons,
                 "conditions": judged.conditions, "figures": figures}
            )
        )  # fmt: skip


def open_board(board: Board) -> BrowserDevice:
    """Return the browser of a board; nothing is served before it is needed.

    Raises:
        UsageProblem: The address means nothing.
    """
    return BrowserDevice(board)


def _page_sha256() -> str:
    """Return what tells one version of the page from another, as the agent's hash does."""
    hashes = (f"{path.name}:{files.sha256_file(path)}" for path in sorted(PAGE.iterdir()))
    return files.sha256_bytes("\n".join(hashes).encode())


def _check_plan(plan: Mapping[str, Any]) -> None:
    if plan["runtime"] not in packages.RUNTIMES:
        raise UsageProblem(
            f"a browser does not run '{plan['runtime']}'",
            hint=f"it runs {' and '.join(packages.RUNTIMES)}",
        )
    if plan.get("cores"):
        raise UsageProblem(
            "a page cannot choose the cores that it runs on",
            hint="bench without --cores, or start the browser with taskset",
        )
    if plan.get("fps"):
        raise UsageProblem(
            "a browser cannot hold a rate of images: its timers are too coarse",
            hint="bench without --fps",
        )
    if plan.get("idle_s"):
        raise UsageProblem(
            "the clock of a browser cannot be lined up with an external meter",
            hint="bench without --power-csv",
        )
    if plan.get("profile"):
        raise UsageProblem(
            "a browser tells no times of single layers", hint="bench without --profile-layers"
        )


def _title(sources: Sources, plan: Mapping[str, Any]) -> str:
    size = sum((sources.folder / name).stat().st_size for name in sources.artifact.files)
    threads = f"{plan['threads']} thread{'s' if plan['threads'] > 1 else ''}"
    return (
        f"{sources.folder.name}, {size / 1e6:.3g} MB, {packages.label(plan['runtime'])}, {threads}"
    )
