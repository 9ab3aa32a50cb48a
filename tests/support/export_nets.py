"""Nets that export tests share: trained for a minute on real images by the program itself."""

import struct
from pathlib import Path

import numpy as np

from edgessl import api
from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid

TRAIN, TEST = 1800, 600
QUIET = Reporter(quiet=True)


def real_images():
    """Return grey images and labels of Fashion-MNIST where it is installed, else digits."""
    from edgessl.data.fashion_mnist import FILES, open_fashion_mnist
    from edgessl.data.idx import read_idx

    try:
        open_fashion_mnist("test")
    except DataInvalid:
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = np.kron(digits.images * 255 / 16, np.ones((1, 3, 3))).astype(np.uint8)
        order = np.random.default_rng(0).permutation(len(pixels))
        pixels, labels = pixels[order], digits.target[order].astype(np.uint8)
        return (pixels[:-600], labels[:-600]), (pixels[-600:], labels[-600:])
    from edgessl.data.fashion_mnist import DEBIAN

    parts = []
    for split, n in (("train", TRAIN), ("test", TEST)):
        stem = DEBIAN / f"{FILES[split]}.gz"
        pixels = read_idx(stem, dimensions=3)[:n]
        labels = read_idx(Path(str(stem).replace("images-idx3", "labels-idx1")), dimensions=1)[:n]
        parts.append((pixels, labels))
    return parts[0], parts[1]


def write_idx(folder: Path, name: str, pixels, labels) -> Path:
    """Write an IDX pair and return the file of images."""
    path = folder / f"{name}-images-idx3-ubyte"
    path.write_bytes(struct.pack(">I3I", 0x803, *pixels.shape) + pixels.tobytes())
    beside = folder / f"{name}-labels-idx1-ubyte"
    beside.write_bytes(struct.pack(">II", 0x801, len(labels)) + labels.tobytes())
    return path


def make_data(folder: Path) -> dict[str, str]:
    """Write training and test images, and return where they are as recipe values."""
    folder.mkdir(parents=True, exist_ok=True)
    train, test = real_images()
    return {
        "data.labels": str(write_idx(folder, "train", *train)),
        "data.test": str(write_idx(folder, "t10k", *test)),
        "data.imgsz": 32,
    }


def train(
    encoder: str, data: dict[str, str], folder: Path, *, epochs: int = 4, stem: str = "stock"
) -> Path:
    """Train a 1x net from scratch with the program, and return the folder of the plain net."""
    settings = data | {
        "encoder.name": encoder, "encoder.width": "1x", "encoder.stem": stem,
        "labels.per_class": None,
        "labels.draws": 1, "finetune.epochs": epochs, "finetune.batch": 64,
        "finetune.learning_rates": [3e-3],
    }  # fmt: skip
    tuned = api.finetune(
        scratch=True, settings=settings, out=folder / f"{encoder}-tuned", reporter=QUIET
    )
    extracted = api.extract(tuned.run, out=folder / f"{encoder}-plain", reporter=QUIET)
    return Path(extracted.result["model"])
