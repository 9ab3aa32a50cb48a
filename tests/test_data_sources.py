"""Sources and decoding: what unpleasant folders and hand-made files turn into."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import zlib
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from edgessl.core.artifact import InputSpec
from edgessl.core.errors import DataInvalid, MissingExtra
from edgessl.core.images import image_sha256
from edgessl.data import decode
from edgessl.data.decode import fit, prepare, prepare_storage, read_image
from edgessl.data.image_set import ImageSet, ImageUnreadable
from edgessl.data.sources import open_source

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
SPEC = InputSpec(height=8, width=8, resize=8)


def middle(path) -> tuple[int, ...]:
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    return tuple(int(v) for v in image[image.shape[0] // 2, image.shape[1] // 2])


def test_transparency_is_laid_on_white(tmp_path):
    Image.new("RGBA", (4, 4), (*RED, 0)).save(tmp_path / "clear.png")
    Image.new("RGBA", (4, 4), (*RED, 128)).save(tmp_path / "half.png")
    Image.new("LA", (4, 4), (0, 0)).save(tmp_path / "grey.png")
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([*BLUE, *RED])
    palette.save(tmp_path / "palette.png", transparency=0)
    palette.save(tmp_path / "opaque.png")
    assert middle(tmp_path / "clear.png") == WHITE
    assert middle(tmp_path / "half.png") == (255, 127, 127)
    assert middle(tmp_path / "grey.png") == WHITE
    assert middle(tmp_path / "palette.png") == WHITE
    assert middle(tmp_path / "opaque.png") == BLUE


def test_grey_deep_and_printed_colours(tmp_path):
    Image.new("CMYK", (16, 16), (255, 0, 255, 0)).save(tmp_path / "print.jpg", quality=100)
    deep = np.full((4, 4), 0x8000, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    Image.fromarray(deep).save(tmp_path / "deep.png")
    (tmp_path / "deep.pgm").write_bytes(b"P5 4 4 65535 " + deep.astype(">u2").tobytes())
    Image.new("1", (4, 4), 1).save(tmp_path / "bits.png")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    assert np.abs(np.subtract(middle(tmp_path / "print.jpg"), GREEN)).max() <= 3
    for name in ("deep.tif", "deep.png", "deep.pgm"):
        assert middle(tmp_path / name) == (128, 128, 128), name
    assert middle(tmp_path / "bits.png") == WHITE
    with pytest.raises(ImageUnreadable, match="floating-point"):
        read_image(tmp_path / "float.tif")


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG by hand, for what Pillow cannot write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    extra = b"".join(chunk(c[:4], c[4:]) for c in chunks)
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + extra + body


def tiff_rgb16(byte_order: str, pixel: tuple[int, int, int]) -> bytes:
    """A 1 x 1 TIFF of 16 bits per channel by hand: header, pixel, bit depths, then the tags."""
    o = byte_order
    tags = [
        (256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 3, 14), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, 8), (277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, 6),
    ]  # fmt: skip
    body = struct.pack(f"{o}3H", *pixel) + struct.pack(f"{o}3H", 16, 16, 16)
    entries = b"".join(
        struct.pack(f"{o}HHI", tag, kind, n)
        + (struct.pack(f"{o}HH", value, 0) if kind == 3 and n == 1 else struct.pack(f"{o}I", value))
        for tag, kind, n, value in tags
    )
    magic = b"II" if o == "<" else b"MM"
    head = magic + struct.pack(f"{o}HI", 42, 20)
    return head + body + struct.pack(f"{o}H", len(tags)) + entries + struct.pack(f"{o}I", 0)


def test_sixteen_bits_per_channel_in_colour_and_big_endian(tmp_path):
    pixel = struct.pack(">3H", 0xFF00, 0x8012, 0x00FF)
    (tmp_path / "deep.png").write_bytes(png(1, 1, 16, 2, b"\0" + pixel))
    (tmp_path / "little.tif").write_bytes(tiff_rgb16("<", (0xFF00, 0x8012, 0x00FF)))
    (tmp_path / "big.tif").write_bytes(tiff_rgb16(">", (0xFF00, 0x8012, 0x00FF)))
    for name in ("deep.png", "little.tif", "big.tif"):
        assert middle(tmp_path / name) == (255, 128, 0), name
    Image.new("I;16B", (4, 4), 0x8000).save(tmp_path / "grey-big.tif")
    assert middle(tmp_path / "grey-big.tif") == (128, 128, 128)


def test_one_transparent_value_is_laid_on_white_at_any_depth(tmp_path):
    clear = struct.pack(">H", 0x4000)
    grey = b"\0" + clear + struct.pack(">H", 0x8000)
    (tmp_path / "grey.png").write_bytes(png(2, 1, 16, 0, grey, b"tRNS" + clear))
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png")[0, :, 0], [255, 128])
    rgb = b"\0" + bytes(RED) + bytes(BLUE)
    (tmp_path / "rgb.png").write_bytes(png(2, 1, 8, 2, rgb, b"tRNS" + struct.pack(">3H", *RED)))
    assert read_image(tmp_path / "rgb.png").tolist() == [[list(WHITE), list(BLUE)]]
    deep = b"\0" + struct.pack(">6H", 0xFF00, 0, 0, 0, 0, 0xFF00)
    shade = b"tRNS" + struct.pack(">3H", 0xFF00, 0, 0)
    (tmp_path / "deep.png").write_bytes(png(2, 1, 16, 2, deep, shade))
    assert read_image(tmp_path / "deep.png")[0, 1].tolist() == list(BLUE)


def test_damaged_exif_does_not_lose_the_picture(tmp_path):
    Image.new("RGB", (16, 8), RED).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    Image.new("RGB", (16, 8), RED).save(tmp_path / "b.jpg", exif=b"Exif\0\0nonsense")
    assert read_image(tmp_path / "a.jpg").shape == (8, 16, 3)
    assert read_image(tmp_path / "b.jpg").shape == (8, 16, 3)


@pytest.mark.slow
def test_a_100_megapixel_photograph_decodes_without_a_word(tmp_path):
    Image.new("L", (10_000, 10_000), 77).save(tmp_path / "large.png")
    code = (
        "import sys; from edgessl.data.decode import read_image; from pathlib import Path;"
        "print(read_image(Path(sys.argv[1])).shape)"
    )
    command = [sys.executable, "-W", "always", "-c", code, str(tmp_path / "large.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(10000, 10000, 3)"
    assert "bomb" not in done.stderr.lower()


def test_first_frame_and_upright_orientation(tmp_path):
    frames = [Image.new("RGB", (6, 6), colour) for colour in (RED, GREEN, BLUE)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert middle(tmp_path / "film.gif") == RED

    lying = Image.new("RGB", (40, 20), RED)
    lying.paste(BLUE, (0, 0, 20, 20))  # left half; orientation 6 turns it to the top
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / "phone.jpg", exif=exif, quality=100)
    upright = read_image(tmp_path / "phone.jpg")
    assert upright.shape == (40, 20, 3)
    assert upright[5, 10, 2] > 200 > 50 > upright[5, 10, 0]
    assert upright[35, 10, 0] > 200 > 50 > upright[35, 10, 2]


def test_decompression_bomb_is_a_reason_to_skip(tmp_path, monkeypatch):
    Image.new("L", (100, 100)).save(tmp_path / "wide.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageUnreadable, match=r"10000 pixels\) exceeds limit of 2000 pixels"):
        read_image(tmp_path / "wide.png")


def test_an_unpleasant_folder(tmp_path):
    """Every odd name is listed, everything decodable decodes, the rest is counted with reasons."""
    names = ["with space.png", "quote'\".png", "emoji-🦊.PNG", "new\nline.png", "ünï.Jpeg"]
    for class_name in ("b", "a"):
        (tmp_path / class_name / "deeper").mkdir(parents=True)
        for name in names:
            Image.new("RGB", (9, 7), GREEN).save(tmp_path / class_name / "deeper" / name)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a" / "whole.jpg")
    bytes_of = (tmp_path / "a" / "whole.jpg").read_bytes()
    (tmp_path / "a" / "cut.jpg").write_bytes(bytes_of[: len(bytes_of) // 2])
    (tmp_path / "a" / "empty.jpg").touch()
    (tmp_path / "a" / "text.jpg").write_text("not a picture")
    (tmp_path / "a" / "page.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.new("RGB", (9, 7), RED).save(tmp_path / "a" / "really-a-png.jpg", format="PNG")
    (tmp_path / "a" / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "._whole.jpg").write_bytes(b"resource fork")
    (tmp_path / "a" / "notes.txt").write_text("passed over")
    (tmp_path / "no-image").mkdir()
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    with open(os.fsencode(tmp_path) + b"/b/latin-\xe9.png", "wb") as stream:
        Image.new("RGB", (9, 7), BLUE).save(stream, format="PNG")

    images = open_source(str(tmp_path))
    assert images.class_names == ("a", "b")
    assert {s.item: s.reason for s in images.skipped} == {
        "a/empty.jpg": "the file is empty",
        "a/dangling.png": "the link leads nowhere",
    }
    prepared = prepare(images, None, SPEC)
    reasons = {s.item: s.reason for s in prepared.skipped}
    assert set(reasons) == {"a/cut.jpg", "a/text.jpg", "a/page.png"}
    assert "truncated" in reasons["a/cut.jpg"]
    assert "known format" in reasons["a/text.jpg"]
    expected = {f"{c}/deeper/{name}" for c in "ab" for name in names}
    expected |= {"a/whole.jpg", "a/really-a-png.jpg", "b/latin-\\xe9.png"}
    assert set(prepared.items) == expected
    assert len(prepared.items) == len(prepared.images) == len(prepared.sha256) == len(expected)
    for item, label, position in zip(prepared.items, prepared.labels, prepared.kept, strict=True):
        assert item[0] == "ab"[label]
        assert images.items[position] == item
    # every row holds the pixels of its own item, also behind a gap that was closed
    row = prepared.items.index("a/whole.jpg")
    np.testing.assert_array_equal(
        prepared.images[row], fit(read_image(tmp_path / "a/whole.jpg"), 8, 8, 8)
    )
    assert prepared.images.flags.c_contiguous
    assert tuple(prepared.images[prepared.items.index("b/latin-\\xe9.png"), 4, 4]) == BLUE


def test_labels_need_class_folders(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "loose.png")
    flat = open_source(str(tmp_path))
    assert flat.labels is None
    with pytest.raises(DataInvalid, match="class folders"):
        flat.require_labels()
    (tmp_path / "only").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "only" / "one.png")
    with pytest.raises(DataInvalid, match="1 of 2 images lie beside"):
        open_source(str(tmp_path)).require_labels()
    (tmp_path / "loose.png").unlink()
    with pytest.raises(DataInvalid, match="one class 'only'"):
        open_source(str(tmp_path)).require_labels()


def test_folders_of_splits_are_not_classes(tmp_path):
    for split in ("train", "Val", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / split / "cat/1.png")
    with pytest.raises(DataInvalid, match="splits, not classes: Val, test, train") as caught:
        open_source(str(tmp_path)).require_labels()
    assert f"--labels {tmp_path}/train" in caught.value.hint
    (tmp_path / "bus").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "bus/1.png")
    open_source(str(tmp_path)).require_labels()


def test_what_cannot_be_a_source_says_why(tmp_path):
    with pytest.raises(DataInvalid, match="no such folder or dataset: 'digit'") as caught:
        open_source("digit")
    assert "did you mean 'digits'?" in caught.value.hint
    for nonsense in ("", " ", "a\0b", "x" * 5000):
        with pytest.raises(DataInvalid, match="no such folder"):
            open_source(nonsense)
    for split in ("digits:test", f"{tmp_path}:val"):
        with pytest.raises(DataInvalid, match="has no split"):
            open_source(split)
    (tmp_path / "a.heic").touch()
    (tmp_path / "b.heic").touch()
    (tmp_path / "c.png").touch()
    with pytest.raises(DataInvalid, match=r"3 file\(s\) seen .*2 x \.heic.*c.png.*empty") as caught:
        open_source(str(tmp_path))
    assert ".jpg" in caught.value.hint
    (tmp_path / "idx").mkdir()
    (tmp_path / "idx" / "train-images-idx3-ubyte").touch()
    with pytest.raises(DataInvalid, match="1 x IDX") as caught:
        open_source(str(tmp_path / "idx"))
    assert "IDX file" in caught.value.hint
    with pytest.raises(DataInvalid, match="is a file"):
        open_source(str(tmp_path / "a.heic"))


def test_nothing_left_after_decoding(tmp_path):
    (tmp_path / "bad.png").write_text("no")
    with pytest.raises(DataInvalid, match=r"no image of .* can be used .*bad\.png"):
        prepare(open_source(str(tmp_path)), None, SPEC)


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_pair_by_hand(tmp_path, suffix):
    pack = gzip.compress if suffix else bytes
    pixels = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    path = tmp_path / f"t10k-images-idx3-ubyte{suffix}"
    path.write_bytes(pack(idx(pixels)))
    assert open_source(str(path)).labels is None
    (tmp_path / f"t10k-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(np.array([2, 0]))))
    images = open_source(str(path))
    np.testing.assert_array_equal(images.load(1), np.stack([pixels[1]] * 3, axis=2))
    assert images.labels.tolist() == [2, 0]
    assert images.class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("images", "labels", "problem"),
    [
        (idx(np.zeros((2, 3, 4)))[:-1], None, "truncated"),
        (idx(np.zeros((2, 3, 4))) + b"x", None, "longer than its header"),
        (idx(np.zeros((2, 3, 4)))[:9], None, "inside its header"),
        (b"", None, "magic missing"),
        (idx(np.zeros(24)), None, "magic 00000801"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, *[2**32 - 1] * 3), None, "truncated"),
        (idx(np.zeros((0, 3, 4))), None, "no image"),
        (idx(np.zeros((2, 3, 4))), idx(np.zeros(3)), "3 labels for the 2 images"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damaged_idx_is_refused(tmp_path, images, labels, problem, suffix):
    pack = gzip.compress if suffix else bytes
    path = tmp_path / f"x.idx3-ubyte{suffix}"
    path.write_bytes(pack(images))
    if labels:
        (tmp_path / "x.idx1-ubyte").write_bytes(labels)
    with pytest.raises(DataInvalid, match=problem):
        open_source(str(path))


def test_cut_gzip_is_refused(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    noise = np.random.default_rng(0).integers(0, 256, (20, 28, 28))
    path.write_bytes(gzip.compress(idx(noise))[:-200])
    with pytest.raises(DataInvalid, match="cannot be read"):
        open_source(str(path))


def test_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets", reason="ships the digits")
    digits = open_source("digits")
    truth = datasets.load_digits()
    assert len(digits) == 1797
    assert digits.class_names == tuple("0123456789")
    np.testing.assert_array_equal(digits.labels, truth.target)
    image = digits.load(1234)
    assert image.shape == (8, 8, 3)
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image[:, :, 1], truth.images[1234] * 255 / 16, atol=0.5)


def test_digits_without_scikit_learn_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra, match="scikit-learn") as caught:
        open_source("digits")
    assert "edgessl[train]" in caught.value.hint


@pytest.mark.parametrize("size", [(100, 60), (60, 100), (33, 33), (500, 375), (31, 90)])
def test_fit_is_resize_and_centre_crop_of_torchvision(size):
    v2 = pytest.importorskip("torchvision.transforms.v2", reason="independent implementation")
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    transform = v2.Compose([v2.Resize(36), v2.CenterCrop((32, 24))])
    want = np.asarray(transform(Image.fromarray(image)))
    np.testing.assert_array_equal(fit(image, 32, 24, 36), want)


def test_fit_enlarges_instead_of_padding_and_survives_strips():
    assert fit(np.full((5, 4, 3), 7, np.uint8), 64, 48, 8).min() == 7
    assert fit(np.full((1, 60000, 3), 9, np.uint8), 32, 32, 36).shape == (32, 32, 3)


def test_order_does_not_depend_on_threads_and_large_sets_go_to_a_file(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    pool = rng.integers(0, 256, (30, 10, 12, 3), dtype=np.uint8)

    def load(position: int) -> np.ndarray:
        if position % 7 == 3:
            raise ImageUnreadable(f"#{position}", "damaged")
        return pool[position]

    images = ImageSet("pool", tuple(f"#{i}" for i in range(30)), load)
    order = rng.permutation(30)
    small = prepare_storage(images, 10, order)
    assert small.kept.tolist() == [i for i in order if i % 7 != 3]
    assert small.items == tuple(f"#{i}" for i in small.kept)
    for row, position in enumerate(small.kept):
        np.testing.assert_array_equal(small.images[row], pool[position][:, 1:11])
    monkeypatch.setattr(decode, "MEMORY_LIMIT_BYTES", 100)
    large = prepare_storage(images, 10, order, cache=tmp_path / "cache")
    assert isinstance(large.images, np.memmap)
    assert (large.sha256, large.source_sha256) == (small.sha256, small.source_sha256)
    assert small.source_sha256 == tuple(image_sha256(pool[i]) for i in small.kept)
    np.testing.assert_array_equal(large.images, small.images)
    assert list((tmp_path / "cache").iterdir()) == []


def test_listing_datasets_imports_neither_numpy_nor_torch():
    code = "import sys, edgessl.data; print({'numpy', 'torch', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
