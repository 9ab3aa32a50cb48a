"""The page in a real Chromium: the answers of the native runtimes, threads, HTTPS, adb, faults."""

import hashlib
import re
import socket
import ssl
import threading
from urllib.parse import urlsplit

import adb_devices
import chromium
import numpy as np
import pytest
from tiny_bench import (
    CLASSES,
    SPEC,
    N,
    bench,
    images_and_logits,
    write_onnx,
    write_stage,
)

from edgessl.core import files
from edgessl.core.artifact import Artifact, InputSpec, Quantized
from edgessl.core.errors import BoardUnreachable, EdgeSSLError
from edgessl.core.images import to_logits, to_model_input
from edgessl.devices.base import Board
from edgessl.devices.browser import line, packages
from edgessl.devices.browser.device import BrowserDevice
from edgessl.devices.protocol import Preset

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing()),
]
# what a loaded machine decides; a model that becomes much faster while it is timed is TOO_SHORT
TIMING = {"VALID", "UNSTABLE", "TOO_SHORT"}
SHORT = Preset("short", 3, 0.02, 11, 0.02, ("p50",))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """The very packages that users get, from the stand-in's tarballs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        packages.setup(lambda said: None, chromium.STANDIN / "npm")
        yield


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """One page on this machine for many benches, as in a run with many artifacts."""
    browser = chromium.Chromium(tmp_path_factory.mktemp("profile"))
    device = BrowserDevice(Board("browser"), browser.tell)
    yield device
    device.close()
    browser.kill()
    assert browser.blocked() == []


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pytest.importorskip("onnx", reason="the tiny model is built with onnx")
    folder = tmp_path_factory.mktemp("tiny")
    path, weights = write_onnx(folder)
    return path, *images_and_logits(weights)


@pytest.fixture
def stage(tiny, tmp_path):
    path, images, logits = tiny
    return write_stage(tmp_path / "stage", [path], "onnx", images, logits)


def native(path, images, logits):
    """Return how far ONNX Runtime on this machine is from the independent logits."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="the native answers")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = [session.run(None, {"input": to_model_input(i[None], SPEC)})[0] for i in images]
    return np.concatenate(found) - logits


def test_onnx_in_the_page_answers_as_onnx_runtime_does_with_two_threads(
    page, stage, tiny, tmp_path
):
    result = bench(page, stage, tmp_path / "out", threads=2)
    assert result.result_kind == "browser"
    assert set(result.verdicts) <= TIMING
    assert result.device["cross_origin_isolated"]
    assert result.device["secure_context"]
    assert result.runtime["used"]["threads"] == 2
    assert result.runtime["version"] == "onnxruntime-web 1.30.0"
    assert [(c.level, c.n, c.passed) for c in result.parity] == [
        ("golden", 16, True), ("answers", N, True),
    ]  # fmt: skip
    # page and native runtime are equally far from a third implementation
    scale = float(np.abs(tiny[2]).max())
    assert result.parity[1].max_abs < float(np.abs(native(*tiny)).max()) / scale + 1e-6
    assert result.accuracy.top1 == pytest.approx(60 / 90)
    assert result.accuracy.agreement == 1
    assert result.accuracy.ece_shift == pytest.approx(0, abs=1e-5)
    infer, whole = result.latency_ms["infer"], result.latency_ms["e2e_from_uint8"]
    assert infer.n == whole.n >= 40
    assert infer.p50 <= whole.p50
    block = result.protocol["timed"][0]["block"]
    assert block > 1  # nothing times eight by eight pixels one by one
    assert any(f"the mean of {block} inferences" in c for c in result.conditions)
    assert result.protocol["timed"][0]["inputs"] == 64
    assert re.fullmatch(r"[a-z0-9-]+-\d+c-[0-9a-f]{6}", page.id)


def variants():
    """Yield every form of input that our files have, with ONNX's number of its type."""
    square = InputSpec.square(8)
    whole = Quantized(scale=0.0187, zero_point=-14)
    yield "float NCHW", square, 1
    yield "float NHWC", square.with_layout("NHWC"), 1
    odd = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.7), "value_range": (-1.0, 1.0)}
    yield "another range", square.model_copy(update=odd), 1
    yield "int8", square.model_copy(update={"dtype": "int8", "quantized": whole}), 3
    yield (
        "uint8",
        square.model_copy(
            update={"dtype": "uint8", "quantized": Quantized(scale=0.02, zero_point=114)}
        ),
        2,
    )
    yield "pixels", square.with_layout("NHWC").model_copy(update={"dtype": "uint8"}), 2


@pytest.mark.parametrize(
    ("spec", "kind"), [v[1:] for v in variants()], ids=[v[0] for v in variants()]
)
def test_the_page_prepares_pixels_to_the_last_bit(page, tmp_path, spec, kind):
    """A net that gives back its input: what is seen is the page's own preprocessing."""
    onnx = pytest.importorskip("onnx", reason="builds the model")
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Cast", ["input"], ["real"], to=1),
            onnx.helper.make_node("Flatten", ["real"], ["logits"]),
        ],
        "same",
        [onnx.helper.make_tensor_value_info("input", kind, spec.shape)],
        [onnx.helper.make_tensor_value_info("logits", 1, [1, 192])],
    )
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / "same.onnx"
    )
    images = np.random.default_rng(1).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    given = to_model_input(images, spec).reshape(N, -1).astype(np.float32)
    exact = write_stage(
        tmp_path / "exact", [tmp_path / "same.onnx"], "onnx", images, given, spec, tolerance=0.0
    )
    result = bench(page, exact, tmp_path / "out", preset=SHORT)
    assert set(result.verdicts) <= TIMING
    assert [c.max_abs for c in result.parity] == [0.0, 0.0]


@pytest.fixture(scope="module")
def lite(tmp_path_factory):
    """A small net as two files: float32, and int8 from end to end."""
    pytest.importorskip("litert_torch", reason="converts the small model")
    pytest.importorskip("ai_edge_quantizer", reason="quantises the small model")
    import torch

    from edgessl.exporters.base import Form, Scheme
    from edgessl.exporters.to_tflite import TfliteExporter

    folder = tmp_path_factory.mktemp("lite")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 3),
        torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(16, CLASSES),
    ).eval()  # fmt: skip
    exporter, spec = TfliteExporter(), InputSpec.square(32)
    images = np.random.default_rng(1).integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)
    (folder / "float").mkdir()
    (folder / "int8").mkdir()
    plain = exporter.write(net, spec, folder / "float", Form())
    inputs = to_model_input(images[:32], plain.input)
    scheme = Scheme("int8", integer_io=True)
    whole = exporter.quantize(folder / "float", plain, folder / "int8", scheme, inputs)
    return folder, images, {"float": plain, "int8": whole}


@pytest.mark.parametrize("form", ["float", "int8"])
def test_tflite_in_the_page_answers_as_litert_does_with_two_threads(page, lite, tmp_path, form):
    from edgessl.exporters.to_tflite import TfliteExporter

    folder, images, written = lite
    spec = written[form].input
    session = TfliteExporter().open(folder / form)
    given = [session.infer(x[None]) for x in to_model_input(images, spec)]
    logits = to_logits(np.concatenate(given), written[form].output)
    sources = [folder / form / "model.tflite"]
    stage = write_stage(tmp_path / form, sources, "tflite", images, logits, spec)
    artifact = Artifact.load(stage[0]).model_copy(update={"output": written[form].output})
    files.write_json(stage[0] / "artifact.json", "export", artifact.model_dump(mode="json"))
    result = bench(page, stage, tmp_path / "out", threads=2, preset=SHORT)
    assert set(result.verdicts) <= TIMING
    assert result.runtime["used"]["threads"] == 2
    assert result.runtime["used"]["input"]["dtype"] == ("int8" if form == "int8" else "float32")
    assert result.runtime["version"] == "@litertjs/core 2.5.3"
    assert max(c.max_abs for c in result.parity) < 1e-6
    assert result.accuracy.agreement == 1


def test_wrong_preprocessing_is_wrong_answers_and_never_timed(page, tiny, tmp_path):
    path, images, logits = tiny
    other = SPEC.model_copy(update={"mean": (0.5, 0.5, 0.5)})
    stage = write_stage(tmp_path / "wrong", [path], "onnx", images, logits, other)
    preset = Preset("mini", 3, 0.02, 40, 0.1, ("p50",), repeats=3)
    result = bench(page, stage, tmp_path / "out", preset=preset)
    assert result.verdicts == ("WRONG_ANSWERS",)
    assert result.latency_ms == {}
    assert result.accuracy is None


def test_repeats_are_new_workers_and_a_pack_without_references_is_answered(page, stage, tmp_path):
    preset = Preset("twice", 3, 0.02, 11, 0.02, ("p50",), repeats=2)
    with np.load(stage[1]) as pack:
        kept = {name: pack[name] for name in ("images", "labels", "sha256")}
    np.savez(stage[1], **kept)
    result = bench(page, stage, tmp_path / "out", preset=preset)
    assert result.latency_ms["load"].n == result.latency_ms["first"].n == 2
    assert [c.level for c in result.parity] == ["golden"]
    assert result.accuracy.top1 == pytest.approx(60 / 90)


def test_a_file_that_does_not_load_is_told_in_words_and_the_page_goes_on(page, stage, tmp_path):
    (tmp_path / "torn.onnx").write_bytes(b"\x08\x09" * 500)
    with np.load(stage[1]) as pack:
        images, logits = pack["images"], pack["reference"]
    torn = write_stage(tmp_path / "torn", [tmp_path / "torn.onnx"], "onnx", images, logits)
    with pytest.raises(EdgeSSLError, match="failed: ") as caught:
        bench(page, torn, tmp_path / "out")
    assert caught.value.message.isprintable()
    packed = tmp_path / "packed.npz"
    with np.load(stage[1]) as pack:
        np.savez_compressed(packed, **dict(pack))
    with pytest.raises(EdgeSSLError, match="'images' is compressed"):
        bench(page, (stage[0], packed), tmp_path / "out")
    assert set(bench(page, stage, tmp_path / "good", preset=SHORT).verdicts) <= TIMING


def test_the_network_gets_https_with_the_certificate_that_was_told(stage, tmp_path):
    browser = chromium.Chromium(tmp_path / "profile", "--ignore-certificate-errors")
    said = []

    def tell(text):
        said.append(text)
        if "://" in text:
            place = urlsplit(text.strip())
            pem = ssl.get_server_certificate((place.hostname, place.port), timeout=10)
            said.append(hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest())
        browser.tell(text)

    device = BrowserDevice(Board("browser", "lan:127.0.0.1"), tell)
    try:
        result = bench(device, stage, tmp_path / "out", threads=2, preset=SHORT)
    finally:
        device.close()
        browser.kill()
    told = "".join(t for t in said if re.fullmatch(r" *(?:[0-9A-F]{2}:?)+", t))
    assert re.sub(r"[ :]", "", told).lower() in said
    assert any(t.startswith("  https://127.0.0.1:") for t in said)
    assert result.device["cross_origin_isolated"]
    assert result.runtime["used"]["threads"] == 2
    assert set(result.verdicts) <= TIMING


def test_an_address_that_is_not_secure_has_one_thread_and_cannot_claim_two(stage, tmp_path):
    browser = chromium.Chromium(
        tmp_path / "profile", "--host-resolver-rules=MAP phone.test 127.0.0.1"
    )
    device = BrowserDevice(
        Board("browser"), lambda said: browser.tell(said.replace("127.0.0.1", "phone.test"))
    )
    try:
        result = bench(device, stage, tmp_path / "two", threads=2, preset=SHORT)
        one = bench(device, stage, tmp_path / "one", threads=1, preset=SHORT)
    finally:
        device.close()
        browser.kill()
    assert result.verdict == "WRONG_BACKEND"
    assert (
        "asked for 2 threads, ran with 1: the address of the page is not a secure one"
        in (result.reasons[0])
    )
    assert set(one.verdicts) <= TIMING
    assert any("not a secure one: one thread and a coarse clock" in c for c in one.conditions)
    # a coarse clock needs longer blocks
    step = next(float(re.search(r"[\d.]+", c)[0]) for c in one.conditions if "clock of" in c)
    assert step > 50
    assert one.protocol["timed"][0]["block"] > 1


def test_a_phone_that_falls_into_water_is_not_waited_for(stage, tmp_path, monkeypatch):
    monkeypatch.setattr(line, "QUIET_S", 3.0)
    browser = chromium.Chromium(tmp_path / "profile")
    device = BrowserDevice(Board("browser"), browser.tell)
    long = Preset("long", 3, 0.02, 40, 60.0, ("p50",))

    def drown(said):
        if said.startswith("timed"):
            browser.kill()

    try:
        with pytest.raises(
            BoardUnreachable, match=r"nothing more was heard of|was closed"
        ) as caught:
            bench(
                device, stage, tmp_path / "out", preset=long,
                progress=lambda said: browser.kill() if said.startswith("timed") else None,
            )  # fmt: skip
    finally:
        device.close()
        browser.kill()
    assert "screen on" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.adbd
@pytest.mark.skipif(bool(adb_devices.missing()), reason=adb_devices.missing())
def test_a_phone_behind_adb_opens_the_page_by_itself(stage, tmp_path, monkeypatch):
    """Real adb, real adbd; what its activity manager was told is opened in Chromium."""
    storage = tmp_path / "storage"
    browser = chromium.Chromium(tmp_path / "profile")
    with (
        adb_devices.private_server(tmp_path) as variables,
        adb_devices.real_adbd(storage) as serial,
    ):
        for name, value in variables.items():
            if name != "TMPDIR":
                monkeypatch.setenv(name, value)
        stop = threading.Event()

        def user():
            while not stop.wait(0.1):
                log = storage / "phone.log"
                if log.is_file() and (
                    told := re.search(r"-d (http://localhost:\S+)", log.read_text())
                ):
                    browser.open(told[1])
                    return

        threading.Thread(target=user, daemon=True).start()
        device = BrowserDevice(Board("browser", f"adb:{serial}"), lambda said: None)
        try:
            result = bench(device, stage, tmp_path / "out", threads=2, preset=SHORT)
            port = urlsplit(re.search(r"http://\S+", (storage / "phone.log").read_text())[0]).port
        finally:
            stop.set()
            device.close()
            browser.kill()
        with pytest.raises(OSError, match="refused"):  # the phone's port is given back
            socket.create_connection(("127.0.0.1", port), timeout=5)
    assert result.device["cross_origin_isolated"]
    assert result.runtime["used"]["threads"] == 2
    assert set(result.verdicts) <= TIMING
