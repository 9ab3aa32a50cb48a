"""The page in Chromium: fits a phone and a desk, readable in light and dark, silent, unscripted."""

from __future__ import annotations

import html as markup
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_boards import boards_run, grid_run
from report_exports import export_run

from edgessl.report.html import write_report

WIDTHS = (360, 390, 1280)
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="chromium is not installed"),
]
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--enable-logging=stderr", "--v=0",
)  # fmt: skip
# the page itself has no script: a frame around it measures it, in every width and theme
MEASURE = """
const widths = %s, text = document.getElementById('page').textContent, found = [];
const rgba = c => { const p = c.match(/[\\d.]+/g).map(Number);
  return p.length < 4 ? [...p, 1] : p };
const over = (a, b) => [0, 1, 2].map(i => a[3] * a[i] + (1 - a[3]) * b[i]).concat(1);
const light = c => [0, 1, 2].map(i => c[i] / 255).map(v =>
  v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
function contrast(element, view) {
  const style = view.getComputedStyle(element);
  const layers = [];
  for (let e = element; e; e = e.parentElement)
    layers.push(rgba(view.getComputedStyle(e).backgroundColor));
  const back = layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
  const svg = element instanceof view.SVGElement;
  const ink = over(rgba(svg ? style.fill : style.color), back);
  const [a, b] = [light(ink), light(back)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}
const words = 'p, dd, dt, th, td, a, li, h1, h2, h3, h4, summary, label, figcaption,' +
  'caption span, .verdict, .soft, svg text';
async function measure(width) {
  const frame = document.createElement('iframe');
  frame.style = `width:${width}px;height:900px;border:0`;
  const ready = new Promise(done => { frame.onload = done });
  frame.srcdoc = text;
  document.body.append(frame);
  await ready;
  const page = frame.contentDocument, view = frame.contentWindow;
  for (const d of page.querySelectorAll('details')) d.open = true;
  for (const theme of ['light', 'dark']) {
    page.getElementById('theme-' + theme).click();
    let worst = [99, ''];
    for (const e of page.querySelectorAll(words)) {
      if (!e.textContent.trim() || e.closest('.skip')) continue;
      const c = contrast(e, view);
      if (c < worst[0]) worst = [c, e.outerHTML.slice(0, 120)];
    }
    const root = page.documentElement;
    found.push({width, theme, worst, scroll: root.scrollWidth, client: root.clientWidth,
      paper: view.getComputedStyle(page.body).backgroundColor,
      scrolling: [...page.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1
        && view.getComputedStyle(e).overflowX !== 'auto').length,
      pictures: [...page.images].filter(i => !i.naturalWidth).length,
      loaded: view.performance.getEntriesByType('resource').map(e => e.name)
        .filter(name => !name.startsWith('data:'))});
  }
}
(async () => {
  for (const width of widths) await measure(width);
  document.getElementById('page').remove();
  for (const frame of document.querySelectorAll('iframe')) frame.remove();
  const out = document.createElement('pre');
  out.id = 'found';
  out.textContent = JSON.stringify(found);
  document.body.append(out);
})();
"""


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    return write_report([export_run(folder / "fashion", samples=300)], folder / "report.html")


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boards")
    runs = [boards_run(folder / "boards", samples=120), grid_run(folder / "grid")]
    runs.append(grid_run(folder / "emulated", "EMULATED", emulated=True))
    return write_report(runs, folder / "report.html")


def chromium(profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BROWSER), *OPTIONS, f"--user-data-dir={profile}", *arguments],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["html", "boards"])
def test_every_width_and_theme_fits_reads_and_stays_silent(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    text = request.getfixturevalue(name).read_text(encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<!doctype html><meta charset="utf-8"><textarea id="page" hidden>{markup.escape(text)}'
        f"</textarea><script>{MEASURE % json.dumps(WIDTHS)}</script>",
        encoding="utf-8",
    )
    wait = "--virtual-time-budget=20000"
    done = chromium(tmp_path / "profile", wait, "--dump-dom", frame.as_uri())
    match = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, done.stdout[-500:] + done.stderr[-500:]
    found = json.loads(markup.unescape(match[1]))
    assert len(found) == 2 * len(WIDTHS)
    for state in found:
        assert state["scroll"] == state["client"] == state["width"], state
        assert state["worst"][0] >= 4.5, state
        assert state["scrolling"] == state["pictures"] == 0, state
        assert state["loaded"] == [], state
    assert {state["paper"] for state in found} == {"rgb(255, 255, 255)", "rgb(18, 21, 24)"}
    # a script that the policy stopped, a file that was not found: each writes a line
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_picture_shows_a_page(html: Path, tmp_path: Path, theme: str) -> None:
    image = pytest.importorskip("PIL.Image", reason="looking at the picture needs Pillow")
    text = html.read_text(encoding="utf-8").replace('id="theme-auto" checked', 'id="theme-auto"')
    page = tmp_path / "page.html"
    page.write_text(text.replace(f'id="theme-{theme}"', f'id="theme-{theme}" checked'))
    picture = tmp_path / "picture.png"
    chromium(
        tmp_path / "profile", "--window-size=1280,3000", f"--screenshot={picture}", page.as_uri()
    )
    shown = image.open(picture).convert("L")
    shades = shown.getcolors()
    assert len(shades) > 50
    most, paper = max(shades)
    assert most < 0.97 * shown.width * shown.height
    assert paper > 240 if theme == "light" else paper < 40
