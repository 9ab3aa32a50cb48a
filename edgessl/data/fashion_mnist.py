"""Fashion-MNIST: four IDX files, from Debian's package or as torchvision stores them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgessl.data.datasets_folder import datasets_folder, not_there
from edgessl.data.idx import open_idx
from edgessl.data.image_set import ImageSet

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FILES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def open_fashion_mnist(split: str = "train") -> ImageSet:
    """Open the 60,000 training or the 10,000 test images, 28 x 28 grey.

    Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking
    machine learning algorithms", 2017, arXiv:1708.07747.

    Raises:
        DataInvalid: The files are not on this computer, or damaged.
    """
    for folder in (DEBIAN, datasets_folder() / "FashionMNIST/raw"):
        for path in (folder / f"{FILES[split]}.gz", folder / FILES[split]):
            if path.is_file():
                return replace(open_idx(path, f"fashion-mnist:{split}"), class_names=CLASSES)
    raise not_there(
        "fashion-mnist",
        f", nor in {DEBIAN}",
        hint="sudo apt install dataset-fashion-mnist, or: "
        "edgessl data prepare fashion-mnist --download",
    )
