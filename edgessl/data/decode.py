"""From files to arrays: decode, resize, centre-crop.

Everything is decoded to uint8 RGB. Resizing is Pillow's antialiased bilinear filter on the full
picture: neither JPEG draft mode nor ``reducing_gap`` is used, as both change pixels.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from edgessl.core.artifact import InputSpec
from edgessl.core.errors import DataInvalid
from edgessl.core.files import explain_os_error
from edgessl.core.framing import framing
from edgessl.core.images import image_sha256
from edgessl.data.image_set import ImageSet, ImageUnreadable, Skipped

Result = TypeVar("Result")
# Content decides, not the suffix. Other formats stay out: some readers start programs.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
# above this size a prepared array lives in a file instead of in memory
MEMORY_LIMIT_BYTES = 2 << 30
# Pillow refuses pictures of more than twice MAX_IMAGE_PIXELS (179 megapixels), which guards
# against decompression bombs. Below that it only warns, as it does of odd metadata: what matters
# to the user is told as a skipped file.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
# pictures above this size are decoded one at a time: eight threads of them would fill the memory
LARGE_PIXELS = 1 << 25
_large_one = threading.Lock()
GREY_16 = ((np.arange(65536, dtype=np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Images of one source, decoded to one size.

    Attributes:
        images: uint8 (N, H, W, 3), C-contiguous; a memory map when it is large.
        labels: int64 (N,), or None without labels.
        class_names: As in the source.
        items: Name of every image.
        sha256: Identity of the pixels of every image (see :mod:`edgessl.core.images`).
        source_sha256: The same of every image as decoded, before it was resized: does not depend
            on the size asked for, so it says who is who in splits and leak checks.
        source_sizes: int64 (N, 2), width and height of every image as decoded.
        groups: Group of every image, or None; as in the source.
        kept: int64 (N,), position of every image in the source.
        skipped: Images that were asked for and could not be decoded.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    items: tuple[str, ...]
    sha256: tuple[str, ...]
    source_sha256: tuple[str, ...]
    source_sizes: NDArray[np.int64]
    groups: tuple[str, ...] | None
    kept: NDArray[np.int64]
    skipped: tuple[Skipped, ...]


def prepare(
    image_set: ImageSet,
    indices: Sequence[int] | NDArray[np.int64] | None,
    spec: InputSpec,
    *,
    cache: Path | None = None,
) -> Prepared:
    """Decode images to the size a model takes, still uint8.

    Args:
        image_set: The source.
        indices: Positions in the source, in the order wanted; None means all.
        spec: Gives ``resize`` (short side), ``height`` and ``width`` (centre crop), in pixels.
        cache: Folder for the pixels when they exceed :data:`MEMORY_LIMIT_BYTES`; without it
            they stay in memory. The space is free again when the process ends.

    Returns:
        The images in the order of ``indices``, less those that cannot be decoded.

    Raises:
        DataInvalid: None can be decoded, or the source is a cache of smaller images.
        DiskFull: ``cache`` has no room.
    """
    check_side(image_set, spec.resize)
    wanted = np.arange(len(image_set)) if indices is None else np.asarray(indices, np.int64)
    pixels = _allocate((len(wanted), spec.height, spec.width, 3), cache)
    hashes, source_hashes = [""] * len(wanted), [""] * len(wanted)
    sizes = np.zeros((len(wanted), 2), np.int64)

    def one(row: int) -> str:
        """Decode into ``row``; return the reason when that fails."""
        position = int(wanted[row])
        try:
            image = image_set.load(position)
        except ImageUnreadable as error:
            return error.reason
        pixels[row] = fit(image, spec.height, spec.width, spec.resize)
        hashes[row] = image_sha256(pixels[row])
        source_hashes[row], sizes[row] = identity(image_set, position, image)
        return ""

    reasons = list(map_in_threads(one, len(wanted)))
    good = [row for row, reason in enumerate(reasons) if not reason]
    skipped = tuple(
        Skipped(image_set.items[wanted[row]], reason)
        for row, reason in enumerate(reasons)
        if reason
    )
    if not good:
        shown = "; ".join(f"{s.item!r}: {s.reason}" for s in skipped[:3]) or "the list is empty"
        raise DataInvalid(
            f"no image of {image_set.name} can be used ({len(wanted)} tried): {shown}",
            hint="open one of the files in an image viewer, or give another source",
        )
    for new, old in enumerate(good):  # close the gaps in place: the array may exceed memory
        if new != old:
            pixels[new] = pixels[old]
    kept = wanted[good]
    return Prepared(
        images=pixels[: len(good)],
        labels=None if image_set.labels is None else image_set.labels[kept],
        class_names=image_set.class_names,
        items=tuple(image_set.items[i] for i in kept),
        sha256=tuple(hashes[row] for row in good),
        source_sha256=tuple(source_hashes[row] for row in good),
        source_sizes=sizes[good],
        groups=None if image_set.groups is None else tuple(image_set.groups[i] for i in kept),
        kept=kept,
        skipped=skipped,
    )


def prepare_storage(
    image_set: ImageSet,
    side: int,
    indices: Sequence[int] | NDArray[np.int64] | None = None,
    *,
    cache: Path | None = None,
) -> Prepared:
    """Decode the squares that random views are cut from: short side to ``side``, centre crop.

    Raises:
        DataInvalid: None can be decoded.
        DiskFull: ``cache`` has no room.
    """
    return prepare(image_set, indices, InputSpec(height=side, width=side, resize=side), cache=cache)


def check_side(image_set: ImageSet, wanted: int) -> None:
    """Refuse a cache whose images were made smaller than what is wanted of them now.

    Args:
        image_set: Any source; only caches can be refused.
        wanted: Short side in pixels.

    Raises:
        DataInvalid: Says both sides, and how many originals were larger.
    """
    known = image_set.known
    if known is None or wanted <= known.side:
        return
    larger = int((known.sizes.min(axis=1) > known.side).sum())
    if larger:
        raise DataInvalid(
            f"{image_set.name} is a cache of images with a short side of {known.side} pixels; "
            f"{wanted} are wanted here, and {larger} of its originals were larger",
            hint=f"cache them again: edgessl data prepare SRC --side {wanted} --out FOLDER, or "
            "use a smaller --imgsz",
        )


def identity(
    image_set: ImageSet, position: int, image: NDArray[np.uint8]
) -> tuple[str, tuple[int, int]]:
    """Return the source sha256 and (width, height) of an image: of the original, if cached."""
    if image_set.known is not None:
        width, height = image_set.known.sizes[position]
        return image_set.known.source_sha256[position], (int(width), int(height))
    return image_sha256(image), (image.shape[1], image.shape[0])


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode one file to uint8 RGB (H, W, 3), upright.

    The EXIF orientation is applied, transparency is laid on white, grey is repeated to three
    channels, 16-bit grey is scaled by 255/65535, of 16-bit colour the high byte is taken, and
    the first frame stands for an animation.

    Raises:
        ImageUnreadable: Missing, empty, truncated, of an unknown format, or of more than 179
            megapixels, Pillow's limit against decompression bombs.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height <= LARGE_PIXELS:
                return _to_rgb(_upright(image))
            with _large_one:
                return _to_rgb(_upright(image))
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise ImageUnreadable(str(path), f"not an image of a known format ({known})") from error
    except Image.DecompressionBombError as error:
        detail = str(error).split(", could be")[0]
        raise ImageUnreadable(str(path), f"{detail[:1].lower()}{detail[1:]}") from error
    except Exception as error:  # decoders meet damaged bytes with any exception
        detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageUnreadable(str(path), detail) from error


def read_mode(path: Path) -> str:
    """Return the colour mode a file is stored in, as Pillow calls it; '?' if unreadable."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.mode
    except Exception:  # noqa: BLE001  (as in read_image)
        return "?"


def fit(image_HWC: NDArray[np.uint8], height: int, width: int, resize: int) -> NDArray[np.uint8]:
    """Resize the short side to ``resize`` pixels, cut ``height`` x ``width`` from the centre.

    The same pixels as torchvision's ``Resize`` and ``CenterCrop`` on a PIL image, except for what
    :func:`edgessl.core.framing.framing` says. Columns are resized before rows with every version
    of Pillow: left to itself, Pillow 13 does tall pictures the other way round, which changes
    pixels by one level.
    """
    h, w = image_HWC.shape[:2]
    at = framing((h, w), (height, width), resize)
    kept = image_HWC[at.top : at.top + at.kept[0], at.left : at.left + at.kept[1]]
    picture = Image.fromarray(np.ascontiguousarray(kept))
    for size in ((at.resized[1], at.kept[0]), (at.resized[1], at.resized[0])):
        if size != picture.size:
            picture = picture.resize(size, Image.Resampling.BILINEAR)
    crop = np.asarray(picture)[at.crop_top : at.crop_top + height]
    return crop[:, at.crop_left : at.crop_left + width]


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # noqa: BLE001  (damaged EXIF is no reason to lose a picture)
        return image
    return ImageOps.exif_transpose(image) if turned else image


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        wide = np.asarray(image)
        if wide.dtype != np.uint16:
            wide = wide.clip(0, 65535).astype(np.uint16)
        grey = GREY_16[wide]
        if isinstance(clear := image.info.get("transparency"), int):
            grey[wide == clear] = 255
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; save it with 8 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _allocate(shape: tuple[int, ...], cache: Path | None) -> NDArray[np.uint8]:
    size = math.prod(shape)
    if cache is None or size <= MEMORY_LIMIT_BYTES:
        return np.empty(shape, np.uint8)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache) as stream:  # nameless: nothing is left behind
            # reserve now: a full disk under a sparse map would kill the process with SIGBUS
            os.posix_fallocate(stream.fileno(), 0, size)
            return np.memmap(stream, np.uint8, "r+", shape=shape)
    except OSError as error:
        raise explain_os_error(error, cache) from error


def map_in_threads(work: Callable[[int], Result], n: int) -> Iterator[Result]:
    """Yield ``work`` of 0..n-1 in order; decoding and hashing release the interpreter lock."""
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        yield from pool.map(work, range(n))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt must not wait for the whole source
