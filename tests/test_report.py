"""Facts about the report: figures keep their verdict, text stays text, nothing is loaded."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edgessl.core import files
from edgessl.core.artifact import Artifact, InputSpec
from edgessl.core.errors import FileInvalid, UsageProblem
from edgessl.core.ledger import Ledger, LedgerRow
from edgessl.core.measurement import Accuracy, BenchResult, Latency, ParityCheck, Verdict
from edgessl.core.statistics import student_t_interval, wilson
from edgessl.report.accuracy import accuracy_points, judge_pretraining
from edgessl.report.html import write_report
from edgessl.report.model_card import write_model_card
from edgessl.report.plots import group_size
from edgessl.report.read import read_run, samples_by_part
from edgessl.report.svg import Axis

HOSTILE = "<script>alert('cat')</script>"
CLASSES = ("cup", "bolt", "nut", HOSTILE, "washer", "spring | coil", "gear & rack", "pin")
N = 1600  # test images


def share(right: float, n: int = N) -> dict[str, float | int | str]:
    """Value, n and Wilson interval of a proportion."""
    low, high = wilson(round(right * n), n)
    return {"value": right, "n": n, "ci_low": low, "ci_high": high, "interval": "Wilson"}


def begun(folder: Path) -> Path:
    """Make a run folder in which nothing was done yet."""
    files.write_json(folder / "run.json", "run", {})
    return folder


def training_rows(rng: random.Random) -> list[LedgerRow]:
    rows = []
    settings = [
        ("pixels", "evaluate", "top1", (0.412, 0.583)),
        ("scratch", "finetune", "top1", (0.447, 0.694)),
        ("sacl-xd", "evaluate", "linear_top1", (0.561, 0.701)),
        ("sacl-xd", "evaluate", "knn_top1", (0.548, 0.662)),
        ("sacl-xd", "finetune", "top1", (0.612, 0.748)),  # draw 0 goes on to the device
    ]
    for variant, stage, metric, levels in settings:
        for budget, level in zip((5, 25), levels, strict=True):
            values = [level] + [level + rng.gauss(0, 0.014) for _ in range(4)]
            name = f"{stage}-{variant}-{metric}-{budget}"
            common = {
                "stage": stage,
                "variant": variant,
                "metric": metric,
                "split": "test",
                "labels_per_class": budget,
                "data_sha256": "d" * 64,
                "width": None if variant == "pixels" else "1x",
            }
            for draw, value in enumerate(values):
                rows.append(
                    LedgerRow(id=f"{name}-d{draw}", draw=draw, seed=draw, **common, **share(value))
                )
            low, high = student_t_interval(values) or (0.0, 1.0)
            rows.append(
                LedgerRow(
                    id=name,
                    parents=tuple(f"{name}-d{d}" for d in range(5)),
                    **common,
                    value=sum(values) / 5,
                    n=N,
                    ci_low=low,
                    ci_high=high,
                    interval="t over 5 draws",
                )
            )
    return rows


def artifact_in(folder: Path, kind: str, target: str, size: int, parents: tuple = ()) -> Artifact:
    name = {"onnx": "model.onnx", "tflite": "model.tflite"}.get(target, "model.safetensors")
    files.write_bytes(folder / name, random.Random(f"{folder.name}").randbytes(size))
    return Artifact.sealed(
        folder,
        [name],
        artifact_kind=kind,
        format=target,
        input=InputSpec.square(96),
        labels=() if kind == "encoder" else CLASSES,
        parents=parents,
        facts={"architecture": "mobilenet_v3_large"}
        | ({"width": 1.0, "target": target, "quantize": "none"} if kind == "export" else {})
        | ({"host_width": 1.5, "slim_width": 1.0} if kind == "encoder" else {})
        | ({"images": 12_400, "method": "sacl-xd"} if kind == "encoder" else {}),
    )


def bench(
    folder: Path,
    artifact: Artifact,
    *,
    device: str,
    runtime: str,
    target: str,
    median: float,
    verdict: Verdict = "VALID",
    samples: int = 1200,
    top1: float = 0.748,
    reasons: tuple[str, ...] = (),
) -> BenchResult:
    rng = random.Random(f"{device}{runtime}{target}")
    infer, whole = [], []
    for index in range(samples):
        drift = 1 + (0.25 * index / samples if verdict == "UNSTABLE" else 0)
        tail = rng.expovariate(1) * 8 if rng.random() < 0.01 else 0
        infer.append(drift * median * math.exp(rng.gauss(0, 0.03)) + tail)
        whole.append(infer[-1] + 0.4 + rng.random() * 0.05)
    low, high = wilson(round(top1 * N), N)
    answers = verdict != "WRONG_ANSWERS"
    result = BenchResult(
        run={"started": "2025-01-02T10:11:12+00:00"},
        model={"seal": artifact.seal, "format": target, "facts": artifact.facts},
        data={"n": N, "data_sha256": "d" * 64},
        device={"kind": "ssh", "id": device, "board": "Raspberry Pi 5", "cores": 4},
        runtime={
            "name": runtime,
            "version": "1.22.0",
            "asked": {"provider": "CPU", "threads": 4},
            "used": {"providers": ["CPU"], "threads": 4, "precision": "float32"},
        },
        protocol={"preset": {"name": "standard", "repeats": 3}, "outliers": [12, 13, 9]},
        latency_ms={
            "load": Latency.of([41.0]),
            "first": Latency.of([median * 3]),
            "infer": Latency.of(infer),
            "e2e_from_uint8": Latency.of(whole),
        },
        throughput_fps=1000 / median,
        memory_mb={"peak": 61.5},
        accuracy=Accuracy(
            top1=top1, n=N, ci_low=low, ci_high=high, agreement=1.0 if answers else 0.31
        ),
        parity=(
            ParityCheck(
                level="golden",
                n=16,
                max_abs=3e-6 if answers else 0.8,
                tolerance=1e-3,
                cosine=0.9999999 if answers else 0.41,
                agreement=1.0 if answers else 0.3,
                passed=answers,
            ),
        ),
        verdicts=(verdict,),
        reasons=reasons,
        conditions=("governor performance", "throttling not observable here"),
    )
    place = folder / "bench" / device / f"1x-{target}-none-{runtime}-4t-20250102T101112Z"
    files.write_json(
        place / "result.json", "bench-result", result.model_dump(mode="json", by_alias=True)
    )
    files.append_jsonl(
        place / "samples.jsonl",
        (
            {"repeat": 1 + i * 3 // samples, "at_s": 0.1 * i, "infer_ms": a, "e2e_from_uint8_ms": b}
            for i, (a, b) in enumerate(zip(infer, whole, strict=True))
        ),
    )
    return result


def fake_run(folder: Path) -> Path:
    """Write a run folder as a complete chain leaves it, with one bad and one drifting bench."""
    rng = random.Random(7)
    rows = training_rows(rng)
    files.append_jsonl(
        folder / "pretrain" / "metrics.jsonl",
        (
            {
                "step": step,
                "epoch": step // 50,
                "lr": 0.03 * (1 - step / 2000),
                "images_per_s": 910 + rng.gauss(0, 20),
                "seconds": step * 0.28,
                "loss": {
                    "total": 4.1 * math.exp(-step / 600) + 1.2 + rng.gauss(0, 0.05),
                    "sacl": 3.0 * math.exp(-step / 700) + 0.9 + rng.gauss(0, 0.04),
                    "xd": float("nan") if step == 30 else 1.1 * math.exp(-step / 300) + 0.3,
                },
            }
            for step in range(0, 2000, 2)
        ),
    )
    files.append_jsonl(
        folder / "finetune" / "metrics.jsonl",
        (
            {"epoch": e, "loss": 2 * math.exp(-e / 9), "val_top1": 0.75 - 0.5 / (e + 1)}
            for e in range(40)
        ),
    )
    encoder = artifact_in(folder / "pretrain", "encoder", "safetensors", 90_000)
    tuned = artifact_in(folder / "finetune", "model", "safetensors", 91_000, (encoder.seal,))
    slim = artifact_in(folder / "extract" / "1x", "model", "safetensors", 41_000, (tuned.seal,))
    files.write_json(
        folder / "extract" / "1x" / "equivalence.json",
        "equivalence",
        {
            "seal": slim.seal,
            "width": "1x",
            "images": 256,
            "max_abs_features": 0.0,
            "max_abs_logits": 2e-7,
            "same_answers": True,
            "tolerance": 1e-5,
            "pass": True,
            "groups": {"stem": [16, 24], "features.1": [24, 40]},
        },
    )
    parent = "finetune-sacl-xd-top1-25-d0"
    common = {
        "variant": "sacl-xd",
        "metric": "top1",
        "split": "test",
        "labels_per_class": 25,
        "width": "1x",
        "data_sha256": "d" * 64,
    }
    same = {"delta": 0.0, "delta_low": -0.0012, "delta_high": 0.0012}

    rows.append(
        LedgerRow(
            id="extract-1x",
            stage="extract",
            parents=(parent,),
            target="pytorch",
            artifact_sha256=slim.seal,
            **common,
            **same,
            **share(0.748),
        )
    )
    for target, top1 in (("onnx", 0.748), ("openvino", 0.748), ("tflite", 0.748)):
        place = folder / "export" / f"1x-{target}-none"
        made = artifact_in(place, "export", target, 39_000, (slim.seal,))
        check = {
            "level": "tensors",
            "n": N,
            "max_abs": 2.1e-6,
            "cosine": 0.99999998,
            "agreement": 1.0,
            "tolerance": 1e-3,
            "pass": True,
        }
        files.write_json(
            place / "parity.json", "parity", {"seal": made.seal, "checks": [check], "snr_db": 118.0}
        )
        where = {"target": target, "quantize": "none", "artifact_sha256": made.seal}
        rows.append(
            LedgerRow(
                id=f"export-{target}",
                stage="export",
                parents=("extract-1x",),
                **where,
                **common,
                **same,
                **share(top1),
            )
        )
        wrong = target == "tflite"
        bench(
            folder,
            made,
            device="pi5",
            target=target,
            runtime=f"{target}-rt",
            median={"onnx": 6.31, "openvino": 4.27, "tflite": 1.234}[target],
            verdict="WRONG_ANSWERS" if wrong else "UNSTABLE" if target == "openvino" else "VALID",
            samples=6000 if target == "openvino" else 1200,
            top1=0.31 if wrong else top1,
            reasons=(f"WRONG_ANSWERS: agreement 31 % with {HOSTILE}",)
            if wrong
            else ("UNSTABLE: the last quarter is 21 % slower than the first",)
            if target == "openvino"
            else (),
        )
        rows.append(
            LedgerRow(
                id=f"bench-{target}",
                stage="bench",
                parents=(f"export-{target}",),
                where="pi5",
                **where,
                **common,
                **(
                    same
                    if not wrong
                    else {"delta": -0.438, "delta_low": -0.46, "delta_high": -0.41}
                ),
                **share(0.31 if wrong else top1),
            )
        )
    Ledger(folder / "ledger.json").put(rows)
    sizes = {"train": 200, "val": 800, "test": N}
    files.write_json(
        folder / "splits.json",
        "splits",
        {
            "data_sha256": "d" * 64,
            "seed": 0,
            "duplicates": 3,
            "asked": {"val": 0.15, "test": 0.25},
            "splits": {k: {"sha256": ["0"] * n, "items": ["x"] * n} for k, n in sizes.items()},
            "skipped": [{"item": f"raw/{HOSTILE}.jpg", "reason": "truncated JPEG"}],
        },
    )
    files.write_json(
        folder / "run.json",
        "run",
        {
            "commands": [
                ["edgessl", "run", "my recipe.yaml", "--out", "runs/parts"],
                ["edgessl", "bench", "last", "--device", "pi5"],
            ],
            "started": "2025-01-02T08:00:00Z",
            "finished": "2025-01-02T10:20:00Z",
            "machine": {"cpu": "AMD EPYC 9R14", "cores": 2, "memory_mb": 15_900},
            "versions": {"python": "3.11.9", "torch": "2.14.1"},
            "stages": {
                "pretrain": {"status": "done", "seconds": 5400.0},
                "finetune": {"status": "failed", "seconds": 310.5},
            },
        },
    )
    files.write_text(
        folder / "recipe.yaml",
        "encoder:\n  name: mobilenet_v3_large\n  width: 1.5x-1x\npretrain:\n  method: sacl-xd\n",
    )
    files.write_text(folder / "log.txt", "08:00:00 pretrain: 12400 images\n")
    return folder


class Page(HTMLParser):
    """Checks nesting while reading, and keeps what the tests ask about."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tables: list[dict[str, int]] = []
        self.cells: list[str] = []
        self.rows: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if "id" in named:
            self.ids.append(named["id"])
        if tag == "table":
            self.tables.append({"caption": 0, "th": 0, "scoped": 0})
        elif tag == "caption":
            self.tables[-1]["caption"] += 1
        elif tag == "th":
            self.tables[-1]["th"] += 1
            self.tables[-1]["scoped"] += named.get("scope") in ("col", "row", "rowgroup")
        if tag in ("td", "dd"):
            self.cells.append("")
        if tag == "tr":
            self.rows.append("")
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack[-1] == tag, f"</{tag}> closes <{self.stack[-1]}>"
        self.stack.pop()

    def handle_data(self, data):
        if "style" in self.stack:
            return
        self.words.append(data)
        if {"td", "dd"} & set(self.stack):
            self.cells[-1] += data
        if "tr" in self.stack:
            self.rows[-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_run(tmp_path_factory.mktemp("runs") / "parts")


@pytest.fixture(scope="module")
def html(run_folder: Path) -> str:
    return write_report([run_folder], run_folder.parent).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


VERDICT = re.compile(r"VALID|WRONG_ANSWERS|WRONG_BACKEND|TOO_SHORT|UNSTABLE|BUSY|EMULATED")


def test_every_latency_stands_beside_its_verdict(page: Page) -> None:
    figures = [cell for cell in page.cells if re.search(r"\d\sms\b", cell)]
    assert len(figures) >= 5
    assert [cell for cell in figures if not VERDICT.search(cell)] == []


def test_report_holds_the_figures_of_the_files(page: Page, run_folder: Path) -> None:
    results = [
        BenchResult.model_validate(json.loads(path.read_text()))
        for path in run_folder.glob("bench/*/*/result.json")
    ]
    for result in results:
        if result.verdict != "WRONG_ANSWERS":
            p50 = result.latency_ms["infer"].p50
            cell = f"{p50:.2f} ms {'✓' if result.verdict == 'VALID' else '!'} {result.verdict}"
            assert any(" ".join(c.split()).startswith(cell) for c in page.cells), cell
    for row in Ledger.open(run_folder).rows:
        if row.draw is None:
            interval = f"[{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]"
            assert f"{100 * row.value:.1f}%" in page.text
            assert interval in page.text
    for figure in ("74.8%", "[72.6, 76.9]", "1,600", "t over 5 draws", "12,400"):
        assert figure in page.text, figure


def test_latency_of_wrong_answers_is_withheld(html: str, page: Page, run_folder: Path) -> None:
    card = write_model_card(run_folder, run_folder.parent / "card.md").read_text()
    (path,) = run_folder.glob("bench/pi5/1x-tflite*/result.json")
    latency = json.loads(path.read_text())["latency_ms"]
    for part in ("infer", "e2e_from_uint8"):
        for name in ("p50", "p90", "max"):
            shown = re.escape(f"{latency[part][name]:.3g}")
            assert not re.search(rf"(?<![\d.]){shown}(?![\d.])\s*ms", page.text)
            assert not re.search(rf"\| {shown} ", card)
    rows = [row for row in page.rows if "WRONG_ANSWERS" in row and "tflite-rt" in row]
    assert len(rows) == 2
    assert all("withheld" in row and not re.search(r"\d\s*ms", row) for row in rows)
    assert card.count("withheld") == 4
    assert "distribution, TFLite" not in html


@pytest.mark.parametrize("timed", [True, False])
def test_a_run_whose_only_bench_is_wrong_has_no_latency(tmp_path: Path, timed: bool) -> None:
    run = begun(tmp_path / "run")
    made = artifact_in(run / "export" / "1x-tflite-none", "export", "tflite", 500)
    facts = {"device": "pi5", "runtime": "tflite", "target": "tflite", "median": 2.0}
    result = bench(run, made, verdict="WRONG_ANSWERS", top1=0.2, **facts)
    if not timed:  # as a bench leaves it: nothing is timed after a failed golden check
        (path,) = run.glob("bench/*/*/result.json")
        bare = result.model_copy(update={"latency_ms": {}, "accuracy": None})
        files.write_json(path, "bench-result", bare.model_dump(mode="json", by_alias=True))
        path.with_name("samples.jsonl").write_text("")
    card = write_model_card(run, tmp_path / "card.md").read_text()
    assert re.search(r"withheld.*WRONG", card)
    page = Page(write_report([tmp_path / "run"], tmp_path / "r.html").read_text())
    assert "withheld ✕ WRONG_ANSWERS" in page.text
    assert any("TFLite" in row and "withheld" in row for row in page.rows)
    assert not re.search(r"\d\s*ms\b", page.text)
    assert "no bench has the verdict VALID" in page.text


def test_percentiles_below_their_floor_are_a_dash_with_the_reason(tmp_path: Path) -> None:
    begun(tmp_path / "run")
    made = artifact_in(tmp_path / "run" / "export" / "1x-onnx-none", "export", "onnx", 500)
    bench(
        tmp_path / "run",
        made,
        device="pi5",
        runtime="onnx",
        target="onnx",
        median=2.0,
        verdict="TOO_SHORT",
        samples=20,
    )
    page = Page(write_report([tmp_path / "run"], tmp_path / "r.html").read_text())
    row = next(row for row in page.rows if "Inference" in row)
    assert "p90 needs 64 samples" in row
    assert "–" in row


def test_text_of_users_stays_text(html: str, run_folder: Path) -> None:
    card = write_model_card(run_folder, run_folder.parent / "card.md").read_text()
    assert "<script" not in html
    assert "<script" not in card
    assert "&lt;script&gt;alert(&#39;cat&#39;)&lt;/script&gt;" in html
    assert "spring \\| coil" in card  # a bar would end a table cell


def test_the_page_loads_nothing(html: str, page: Page) -> None:
    assert "http" not in html.replace("http-equiv", "")
    assert "@import" not in html
    assert "url(" not in html
    for tag, key, value in page.attributes:
        assert key not in ("src", "srcset", "data", "xlink:href"), (tag, key)
        assert key != "href" or value.startswith("#"), value
        assert not key.startswith("on"), (tag, key)
    anchors = {value[1:] for _, key, value in page.attributes if key == "href"}
    assert anchors <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_tables_and_plots_can_be_read_aloud(page: Page, html: str) -> None:
    assert len(page.tables) > 8
    for table in page.tables:
        assert table["caption"] == 1
        assert table["th"] == table["scoped"] > 0
    plots = html.count('role="img"')
    assert plots == html.count("<desc ") == html.count('aria-labelledby="plot') > 8


def test_only_a_ledger_is_enough(tmp_path: Path) -> None:
    begun(tmp_path / "run")
    Ledger(tmp_path / "run" / "ledger.json").put(training_rows(random.Random(3)))
    page = Page(write_report([tmp_path / "run"], tmp_path / "r.html").read_text())
    assert "Raw pixels, logistic regression" in page.text
    assert "Not run: no bench" in page.text
    assert "Not recorded: there is no splits.json" in page.text


def test_an_empty_run_says_so(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    page = Page(write_report([run], tmp_path / "r.html").read_text())
    assert page.text.count("Not run") >= 5
    assert "Not measured" in write_model_card(run, tmp_path).read_text()
    with pytest.raises(UsageProblem):
        write_report([], tmp_path / "r.html")


@pytest.mark.parametrize(
    ("make", "said", "hint"),
    [
        (lambda _: None, "does not exist", "runs/<name>"),
        (lambda f: f.write_text("x"), "is a file", "runs/<name>"),
        (lambda f: f.mkdir(), "it holds nothing", "runs/<name>"),
        (lambda f: [files.write_text(f / n, "x") for n in "abcd"], "a, b, c and 1 more", "runs/"),
        (lambda f: begun(f / "own"), "no run.json", "what/own"),
        (lambda f: (begun(f.parent), f.mkdir()), "no run.json", "it lies in the run folder"),
        (lambda f: files.write_json(f / "run.json", "ledger", {}), "holds 'ledger'", ""),
        (lambda f: files.write_text(f / "run.json", "{"), "not readable JSON", ""),
        (lambda f: files.write_text(begun(f) / "ledger.json", "<p>"), "not readable", "ledger"),
        (
            lambda f: files.write_json(begun(f) / "ledger.json", "ledger", {"rows": [{"id": 1}]}),
            "malformed row",
            "ledger",
        ),
    ],
)
def test_what_is_no_run_folder_is_refused_and_stays_as_it_was(
    tmp_path: Path, make, said: str, hint: str
) -> None:
    what = tmp_path / "photos" / "what"
    what.parent.mkdir()
    make(what)
    before = sorted(tmp_path.rglob("*"))
    good = fake_run(tmp_path.parent / f"{tmp_path.name}-good")
    for write in (
        lambda: write_report([good, what], what / "report.html"),
        lambda: write_model_card(what, what),
    ):
        with pytest.raises(FileInvalid, match=said) as caught:
            write()
        assert caught.value.exit_code == 3
        assert hint in caught.value.hint
    assert sorted(tmp_path.rglob("*")) == before


def test_a_verdict_and_its_reason_are_said_once(page: Page, html: str) -> None:
    assert "the last quarter is 21 % slower" in page.text
    assert not re.search(r"UNSTABLE\W+UNSTABLE|WRONG_ANSWERS\W+WRONG_ANSWERS", page.text)
    assert "<li>the last quarter is 21 %" in html


def test_other_verdicts_keep_their_name_beside_the_worst(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    made = artifact_in(run / "export" / "1x-onnx-none", "export", "onnx", 500)
    why = ("UNSTABLE: infer drifted", "BUSY: other work")
    facts = {"device": "pi5", "runtime": "onnx", "target": "onnx", "median": 2.0}
    result = bench(run, made, verdict="UNSTABLE", reasons=why, **facts)
    several = result.model_copy(update={"verdicts": ("UNSTABLE", "BUSY", "EMULATED")})
    (path,) = run.glob("bench/*/*/result.json")
    files.write_json(path, "bench-result", several.model_dump(mode="json", by_alias=True))
    html = write_report([run], tmp_path / "r.html").read_text()
    assert "<li>infer drifted</li>" in html
    assert "<li>BUSY: other work</li>" in html
    assert "; also EMULATED</p>" in html


def predictions(path: Path, right: list[bool]) -> None:
    lines = [f"{i:064x},3,{3 if ok else 4},0.9,0.5\n" for i, ok in enumerate(right)]
    files.write_text(path, "sha256,label,predicted,score,margin\n" + "".join(lines))


def test_discordant_images_are_counted_from_the_answers(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    (place,) = run.glob("bench/pi5/1x-onnx*")
    before = run / "export" / "1x-onnx-none" / "predictions.csv"
    right = [i % 4 > 0 for i in range(N)]
    # one image gained, eight lost: p = 2 (C(9,0) + C(9,1)) / 2^9 = 20 / 512
    changed = [not ok if i in (0, *range(1, 32, 4)) else ok for i, ok in enumerate(right)]
    predictions(before, right)
    predictions(place / "predictions.csv", changed)
    ledger = Ledger.open(run)
    row = next(r for r in ledger.rows if r.id == "bench-onnx")
    claimed = {"delta": -7 / N, "value": row.value - 7 / N, "compared_with": "export-onnx"}
    ledger.put([row.model_copy(update=claimed)])
    text = Page(write_report([run], tmp_path / "r.html").read_text()).text
    assert "1 image gained, 8 lost; McNemar p 0.039" in text.replace("\u00a0", " ")
    assert "does not fit" not in text
    predictions(place / "predictions.csv", right)  # answers that the ledger does not speak of
    text = Page(write_report([run], tmp_path / "r.html").read_text()).text
    assert "does not fit the predictions.csv of both" in text
    before.write_text("sha256,label,predicted\n")  # other images: nothing can be paired
    text = Page(write_report([run], tmp_path / "r.html").read_text()).text
    assert "gained" not in text
    assert "the same images right" not in text


def test_broken_files_are_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    (run / "splits.json").write_text("{")
    result = next(run.glob("bench/pi5/1x-onnx*/result.json"))
    result.write_text(json.dumps({"verdicts": ["FINE"]}))
    (run / "export" / "1x-tflite-none" / "model.tflite").write_bytes(b"other bytes")
    (run / "recipe.yaml").write_text("a: [")
    page = Page(write_report([run], tmp_path / "r.html").read_text())
    problems = page.text[page.text.index("Some files could not be used") :][:1500]
    for name in ("splits.json", "result.json", "model.tflite", "recipe.yaml"):
        assert name in problems
    assert str(tmp_path) not in problems
    assert "✕ altered" in page.text
    assert "OpenVINO" in page.text


def test_several_runs_share_one_page(run_folder: Path, tmp_path: Path) -> None:
    other = begun(tmp_path / "ledger-only")
    Ledger(other / "ledger.json").put(training_rows(random.Random(3)))
    page = Page(write_report([run_folder, other], tmp_path / "r.html").read_text())
    assert "2 runs side by side" in page.text
    assert {"r1", "r2", "r1-latency", "r2-latency"} <= set(page.ids)


def test_model_card_names_seal_files_verdict_and_contract(run_folder: Path) -> None:
    card = write_model_card(run_folder, run_folder / "MODEL_CARD.md").read_text()
    artifact = Artifact.load(run_folder / "export" / "1x-onnx-none")
    assert artifact.seal in card
    assert artifact.files["model.onnx"] in card
    assert "edgessl run 'my recipe.yaml' --out runs/parts" in card
    for words in ("Top-1 74.8%", "1,600 images", "VALID", "shape 1 x 3 x 96 x 96", "Apache-2.0"):
        assert words in card, words
    assert not card.startswith("---")
    # every line of a table has as many cells as its head
    width = 0
    for line in card.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not (cells and width) or cells == width, line
        width = cells


def pair_rows(scratch: list[float], pretrained: list[float]) -> list[LedgerRow]:
    return [
        LedgerRow(
            id=f"{variant}{draw}",
            stage="finetune",
            variant=variant,
            metric="top1",
            n=500,
            value=value,
            draw=draw,
            labels_per_class=10,
            split="test",
            width="1x",
        )
        for variant, values in (("scratch", scratch), ("sacl-xd", pretrained))
        for draw, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("differences", "answer"),
    [
        ([0.05, 0.06, 0.07], "paid"),  # mean 0.06, sd 0.01, t 4.303: 0.035 to 0.085
        ([0.02, 0.04, 0.06], "cannot tell"),  # mean 0.04, sd 0.02: -0.010 to 0.090
        ([-0.05, -0.06, -0.07], "did not pay"),
        ([0.30], "cannot tell"),  # one draw, however large
    ],
)
def test_whether_pretraining_paid_is_judged_pair_by_pair(differences, answer) -> None:
    # scratch differs far more between draws than the pairs do: only pairing can tell
    scratch = [0.4, 0.6, 0.5][: len(differences)]
    rows = pair_rows(scratch, [s + d for s, d in zip(scratch, differences, strict=True)])
    (judgement,) = judge_pretraining(rows)
    assert judgement.answer == answer
    assert judgement.delta == pytest.approx(sum(differences) / len(differences))
    if answer == "paid":
        assert judgement.low == pytest.approx(0.06 - 4.302653 * 0.01 / math.sqrt(3), abs=1e-6)


def test_raw_pixels_that_do_better_are_said_in_the_headline(tmp_path: Path) -> None:
    def headline(pixels: float) -> str:
        run = begun(tmp_path / f"run{pixels}")
        rows = pair_rows([0.4, 0.4], [0.70, 0.72])
        floor = rows[0].model_copy(
            update={"id": "p", "variant": "pixels", "metric": "linear_top1", "value": pixels}
        )
        Ledger(run / "ledger.json").put([*rows, floor])
        text = Page(write_report([run], tmp_path / "r.html").read_text()).text
        return text[: text.index("Accuracy ledger")]

    assert "Raw pixels, logistic regression: 88.2%, 17.2 points above" in headline(0.882)
    assert "Raw pixels" not in headline(0.5)


def test_draws_without_a_summary_are_summarised_with_t() -> None:
    point = accuracy_points(pair_rows([0.50, 0.52, 0.54], []))[0]
    assert point.value == pytest.approx(0.52)
    assert point.low == pytest.approx(0.52 - 4.302653 * 0.02 / math.sqrt(3), abs=1e-6)
    assert point.draws == (0.50, 0.52, 0.54)
    assert point.interval == "t over 3 draws"


def test_rows_on_other_images_or_with_a_false_difference_are_flagged(tmp_path: Path) -> None:
    common = {"variant": "sacl-xd", "metric": "top1", "width": "1x"}
    rows = [
        LedgerRow(id="a", stage="extract", value=0.5, n=100, **common),
        LedgerRow(
            id="b",
            stage="export",
            target="onnx",
            parents=("a",),
            value=0.45,
            n=100,
            delta=0.0,
            **common,
        ),
    ]
    begun(tmp_path / "run")
    ledger = Ledger(tmp_path / "run" / "ledger.json")
    ledger.put(rows)
    text = Page(write_report([tmp_path / "run"], tmp_path / "r.html").read_text()).text
    assert "does not fit the two figures" in text
    ledger.put([rows[1].model_copy(update={"n": 90})])
    text = Page(write_report([tmp_path / "run"], tmp_path / "r.html").read_text()).text
    assert "different numbers of images: 90, 100" in text


def test_axes_cover_their_values_with_distinct_ticks() -> None:
    rng = random.Random(5)
    for _ in range(500):
        centre, spread = rng.uniform(-50, 50), 10 ** rng.uniform(-3, 3)
        values = [centre + rng.uniform(-spread, spread) for _ in range(rng.randint(1, 6))]
        axis = Axis.around(values)
        assert axis.low <= min(values) <= max(values) <= axis.high
        labels = [axis.text(tick) for tick in axis.ticks]
        assert len(set(labels)) == len(labels) >= 2
        for tick, label in zip(axis.ticks, labels, strict=True):
            written = float(label.replace("−", "-").replace(",", ""))
            assert written == pytest.approx(tick, abs=0.01 * (axis.high - axis.low))


def test_downsampling_starts_above_2000_samples_and_is_said(page: Page) -> None:
    assert group_size(2000) == 1
    assert group_size(6000) == 12
    assert "6,000 samples in the order taken, drawn as 500 groups of 12" in page.text


def test_samples_are_read_in_milliseconds_with_their_repeats() -> None:
    rows = [
        {"repeat": 1, "at_s": 0.1, "infer_ms": 2.0},
        {"repeat": 1, "at_s": 0.2, "infer_ms": 3.0},
        {"repeat": 2, "at_s": 0.1, "infer_ms": 4.0, "e2e_from_uint8_ms": 5.0, "copy_in_ms": 9.0},
    ]
    samples, starts = samples_by_part(rows)
    assert samples == {"infer": [2.0, 3.0, 4.0], "e2e_from_uint8": [5.0]}
    assert starts == [2]


def test_reading_a_run_keeps_raw_samples_in_order(run_folder: Path) -> None:
    found = {b.result.verdict: b for b in read_run(run_folder).benches}
    drifting = found["UNSTABLE"].samples["infer"]
    assert len(drifting) == 6000
    assert sum(drifting[-1500:]) > 1.1 * sum(drifting[:1500])
    assert list(found["UNSTABLE"].starts) == [2000, 4000]


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_a_phone_and_a_desk(html: str, tmp_path: Path, width: int) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("chromium is not installed")
    image = pytest.importorskip("PIL.Image", reason="looking at the picture needs Pillow")
    # a frame, since a headless window cannot be as narrow as a phone
    framed = html.replace("&", "&amp;").replace('"', "&quot;")
    (tmp_path / "frame.html").write_text(
        f'<!doctype html><body style="margin:0"><iframe style="width:{width}px;height:3000px;'
        f'border:0" srcdoc="{framed}"></iframe><script>onload = () => {{ const root = '
        "document.querySelector('iframe').contentDocument.documentElement;"
        "document.body.dataset.widths = [root.scrollWidth, root.clientWidth] }</script></body>"
    )
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1280,3000",
    ]
    address = (tmp_path / "frame.html").as_uri()
    dom = subprocess.run(
        [*command, "--dump-dom", address], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    found = re.search(r'data-widths="(\d+),(\d+)"', dom)
    assert found, dom[-300:]
    assert found[1] == found[2] == str(width)
    picture = tmp_path / "picture.png"
    subprocess.run(
        [*command, f"--screenshot={picture}", address], capture_output=True, timeout=120, check=True
    )
    shown = image.open(picture).convert("L").crop((0, 0, width, 3000))
    shades = shown.getcolors()
    assert len(shades) > 50
    assert max(count for count, _ in shades) < 0.97 * width * 3000
