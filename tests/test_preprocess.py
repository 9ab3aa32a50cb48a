"""Preprocessing inside the graph: the numbers that the stages outside of it give."""

import sys

import numpy as np
import pytest
from PIL import Image

from edgessl.core.artifact import InputSpec
from edgessl.core.errors import ConversionFailed
from edgessl.core.framing import framing
from edgessl.core.images import to_model_input
from edgessl.data.decode import fit
from edgessl.exporters.base import Form
from edgessl.exporters.pillow_resize import BITS, EXACT, low_bits, side, weights
from edgessl.exporters.preprocess import check_resize, embedded, embedded_spec, example_input

torch = pytest.importorskip("torch", reason="files are written from torch modules")

SMALL = InputSpec(height=48, width=40, resize=56)


def as_pixels(height, width, resize):
    """Return a contract under which a net gets pixels as they are."""
    return InputSpec(
        height=height, width=width, resize=resize,
        value_range=(0.0, 255.0), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0),
    )  # fmt: skip


@pytest.fixture(scope="module")
def photographs():
    datasets = pytest.importorskip("sklearn.datasets", reason="ships two photographs")
    return datasets.load_sample_images().images


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, bias=False), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5),
    ).eval()  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"value_range": (-1.0, 1.0), "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
        {"value_range": (0.0, 255.0), "mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)},
        {"mean": (0.1, 0.9, 0.5), "std": (0.01, 2.0, 0.3)},
    ],
)
def test_every_pixel_value_is_normalised_as_outside(fields):
    spec = InputSpec(height=16, width=16, resize=16, **fields)
    pixels = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), 3, axis=3)
    inside = embedded(torch.nn.Identity(), spec, Form(embed=True))(torch.from_numpy(pixels))
    outside = to_model_input(pixels, spec)
    assert inside.shape == outside.shape
    assert np.abs(inside.numpy() - outside).max() <= 1e-6 * np.abs(outside).max()


def test_an_embedded_net_gives_the_logits_of_the_plain_one(net, photographs):
    form = Form(embed=True)
    images = np.stack([fit(photo, 48, 40, 56) for photo in photographs])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    inside = embedded(net, SMALL, form)
    with torch.no_grad():
        want = net(torch.from_numpy(to_model_input(images, SMALL))).numpy()
        got = inside(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert {f"net.{name}" for name, _ in net.named_modules() if name} <= {
        name for name, _ in inside.named_modules()
    }


def test_the_contract_of_an_embedded_file_takes_pixels_as_they_are():
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 40, 3), dtype=np.uint8)
    spec = embedded_spec(SMALL, Form(embed=True))
    assert spec.takes_pixels
    np.testing.assert_array_equal(to_model_input(images, spec), images)
    form = Form(embed=True, raw=(240, 320))
    assert embedded_spec(SMALL, form).shape == (1, 240, 320, 3)
    assert tuple(example_input(SMALL, form, 2).shape) == (2, 240, 320, 3)
    assert tuple(example_input(SMALL, Form(), 2).shape) == (2, 3, 48, 40)


@pytest.mark.parametrize(
    ("height", "width", "crop", "resize"),
    [
        (427, 640, (224, 224), 256),
        (640, 427, (96, 96), 110),
        (427, 640, (64, 48), 64),  # half of a level decides
        (427, 640, (200, 300), 427),  # nothing to resize
        (480, 200, (96, 96), 110),  # Pillow 13 would resize the rows first
        (100, 4000, (32, 32), 36),  # a strip: cut first
        (1080, 1920, (28, 28), 28),  # 79 pixels to a sum: the digits are moved
    ],
)
def test_pictures_are_resized_inside_to_the_same_pixels(photographs, height, width, crop, resize):
    picture = Image.fromarray(photographs[0]).resize((width, height), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).integers(0, 2, (height, width, 3), dtype=np.uint8) * 255
    for image in (np.asarray(picture), noise):
        module = embedded(
            torch.nn.Identity(), as_pixels(*crop, resize), Form(embed=True, raw=(height, width))
        )
        got = module(torch.from_numpy(image[None].copy()))[0].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(got, fit(image, *crop, resize))


@pytest.mark.parametrize(("source", "target"), [(640, 384), (427, 64), (1920, 96), (50, 70)])
def test_digits_are_whole_sum_up_to_the_weights_and_survive_float16(source, target):
    starts, table = weights(source, target)
    along = side(source, target, 0, target)
    rebuilt = np.zeros((target, source))
    position = 0
    for block in along.blocks:
        both = block.high.astype(np.float64) + block.low * 2.0 ** (along.low_bits - BITS)
        rows = slice(position, position + both.shape[1])
        rebuilt[rows, block.start + along.begin : block.stop + along.begin] = both.T
        position += both.shape[1]
        for digit in (block.high, block.low):
            np.testing.assert_array_equal(digit.astype(np.float16).astype(np.float32), digit)
    for row, (start, weight) in enumerate(zip(starts, table, strict=True)):
        kept = weight[: source - start]
        np.testing.assert_array_equal(rebuilt[row, start : start + len(kept)] * 2**BITS, kept)
    assert np.abs(table.sum(1) - 2**BITS).max() < 32


def test_sums_stay_exact_up_to_the_limit_and_are_refused_beyond():
    for taps in (1, 64, 65, 500, 2056):
        assert taps * 2 ** (low_bits(taps) - 1) * 255 <= EXACT
    with pytest.raises(ConversionFailed, match="2057 pixels"):
        low_bits(2057)


@pytest.mark.parametrize(
    ("form", "told"),
    [
        (Form(raw=(480, 640)), "--embed-preprocess"),
        (Form(embed=True, raw=(40, 640)), "40 x 640"),
        (Form(embed=True, raw=(0, 640)), "0 x 640"),
    ],
)
def test_pictures_that_cannot_be_exact_are_refused(net, form, told):
    with pytest.raises(ConversionFailed) as caught:
        embedded(net, SMALL, form)
    assert told in caught.value.message + caught.value.hint


def test_a_picture_of_the_size_after_resizing_is_only_cropped():
    check_resize(SMALL, Form(embed=True, raw=(56, 70)))
    at = framing((56, 70), (48, 40), 56)
    assert (at.resized, at.crop_top, at.crop_left) == ((56, 70), 4, 15)
    module = embedded(torch.nn.Identity(), SMALL, Form(embed=True, raw=(56, 70)))
    assert not [name for name, _ in module.named_buffers() if name.startswith("fit")]


@pytest.fixture(scope="module")
def camera(photographs):
    """Return a module from whole pictures to pixels, a picture, and the pixels of it."""
    spec = as_pixels(64, 48, 73)
    module = embedded(torch.nn.Identity(), spec, Form(embed=True, raw=(427, 640)))
    picture = np.ascontiguousarray(photographs[1])[None]
    return module, picture, fit(picture[0], 64, 48, 73)


@pytest.mark.slow
@pytest.mark.export
def test_onnx_runtime_resizes_exactly(camera):
    runtime = pytest.importorskip("onnxruntime", reason="runs ONNX files")
    pytest.importorskip("onnxscript", reason="the exporter needs it")
    module, picture, want = camera
    program = torch.onnx.export(
        module, (torch.zeros(picture.shape, dtype=torch.uint8),), dynamo=True, verbose=False
    )
    session = runtime.InferenceSession(
        program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    got = session.run(None, {session.get_inputs()[0].name: picture})[0]
    np.testing.assert_array_equal(got[0].transpose(1, 2, 0), want)


@pytest.mark.slow
@pytest.mark.export
def test_openvino_resizes_exactly_in_float32_and_to_one_level_in_bfloat16(camera, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)
    openvino = pytest.importorskip("openvino", reason="converts and runs IR files")
    module, picture, want = camera
    example = torch.zeros(picture.shape, dtype=torch.uint8)
    model = openvino.convert_model(module, example_input=example, input=[list(picture.shape)])
    for precision, allowed in (("f32", 0), ("bf16", 1)):
        config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1}
        got = openvino.Core().compile_model(model, "CPU", config)([picture])[0]
        assert np.abs(got[0].transpose(1, 2, 0) - want).max() <= allowed


@pytest.mark.slow
@pytest.mark.export
def test_litert_resizes_exactly(camera, tmp_path):
    litert_torch = pytest.importorskip("litert_torch", reason="converts to LiteRT")
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="runs LiteRT files")
    module, picture, want = camera
    path = tmp_path / "model.tflite"
    litert_torch.convert(module, (torch.zeros(picture.shape, dtype=torch.uint8),)).export(str(path))
    opened = interpreter.Interpreter(model_path=str(path), num_threads=1)
    opened.allocate_tensors()
    opened.set_tensor(opened.get_input_details()[0]["index"], picture)
    opened.invoke()
    got = opened.get_tensor(opened.get_output_details()[0]["index"])
    np.testing.assert_array_equal(got[0].transpose(1, 2, 0), want)
