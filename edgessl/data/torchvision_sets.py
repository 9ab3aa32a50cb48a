"""Datasets that torchvision knows: found in the folder of datasets, downloaded only on request.

torchvision reads the file lists and checks the sums of what it unpickles (CIFAR); the pictures
themselves are decoded like those of any folder.
"""

from __future__ import annotations

import contextlib
import errno
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import EdgeSSLError, UsageProblem
from edgessl.core.files import explain_os_error
from edgessl.core.registry import missing_extra
from edgessl.data import SOURCES
from edgessl.data.datasets_folder import datasets_folder, not_there
from edgessl.data.folders import decoders
from edgessl.data.image_set import ImageSet

# where torchvision looks below its root, and what it calls the class
PLACES = {
    "fashion-mnist": ("FashionMNIST", "FashionMNIST"),
    "cifar10": ("cifar-10-batches-py", "CIFAR10"),
    "cifar100": ("cifar-100-python", "CIFAR100"),
    "aircraft": ("fgvc-aircraft-2013b", "FGVCAircraft"),
    "flowers102": ("flowers-102", "Flowers102"),
    "cars": ("stanford_cars", "StanfordCars"),
    "imagenet": ("imagenet", "ImageNet"),
}
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
BY_HAND = {
    "cars": "its page is gone: put devkit/, cars_train/, cars_test/ and "
    "cars_test_annos_withlabels.mat into {place}",
    "imagenet": "it needs an account at image-net.org: put ILSVRC2012_devkit_t12.tar.gz and "
    "ILSVRC2012_img_train.tar or ILSVRC2012_img_val.tar into {place}",
}


def open_cifar10(split: str = "train") -> ImageSet:
    """Open CIFAR-10, 32 x 32 pixels. Source: Krizhevsky, "Learning multiple layers of features
    from tiny images", 2009.

    Raises:
        DataInvalid: Not on this computer, or its files are not the official ones.
    """  # noqa: D205
    return _arrays("cifar10", split, _made("cifar10", train=split == "train"))


def open_cifar100(split: str = "train") -> ImageSet:
    """Open CIFAR-100 with its 100 fine classes; as :func:`open_cifar10`."""
    return _arrays("cifar100", split, _made("cifar100", train=split == "train"))


def open_aircraft(split: str = "trainval") -> ImageSet:
    """Open FGVC-Aircraft by variant. Source: Maji et al., 2013, arXiv:1306.5151.

    Raises:
        DataInvalid: Not on this computer.
    """
    made = _made("aircraft", split=split, loader=str)
    return _files("aircraft", split, made, made.classes)


def open_flowers102(split: str = "train") -> ImageSet:
    """Open the Oxford flowers. Source: Nilsback and Zisserman, ICVGIP 2008.

    Raises:
        DataInvalid: Not on this computer, or its files of labels are not the official ones.
    """
    made = _made("flowers102", split=split, loader=str)
    return _files("flowers102", split, made, made.classes)


def open_cars(split: str = "train") -> ImageSet:
    """Open Stanford Cars. Source: Krause et al., 3DRR 2013.

    Raises:
        DataInvalid: Not on this computer.
    """
    made = _made("cars", split=split, loader=str)
    return _files("cars", split, made, made.classes)


def open_imagenet(split: str = "train") -> ImageSet:
    """Open ImageNet 2012; a class is called by its WordNet number and first word.

    Source: Russakovsky et al., IJCV 2015, arXiv:1409.0575.

    Raises:
        DataInvalid: Not on this computer.
    """
    made = _made("imagenet", split=split, loader=str)
    names = [f"{n} {words[0]}" for n, words in zip(made.wnids, made.classes, strict=True)]
    return _files("imagenet", split, made, names)


def download(name: str, say: Callable[[str], object]) -> Path:
    """Fetch a dataset into the folder of datasets; what is there already is kept.

    Args:
        name: Of the dataset.
        say: Told what happens.

    Returns:
        The folder of the dataset.

    Raises:
        UsageProblem: The dataset cannot be fetched by a program.
        EdgeSSLError: The network or the disk failed; nothing is left behind.
    """
    root = datasets_folder()
    place = root / PLACES[name][0] if name in PLACES else root
    if not SOURCES[name].facts.get("download"):
        raise UsageProblem(
            f"'{name}' cannot be downloaded by a program",
            hint=BY_HAND.get(name, "nothing to fetch: it is part of a package").format(place=place),
        )
    if place.is_dir():
        say(f"{name}: already in {place}")
        return place
    made = _dataset_class(name)
    try:
        root.mkdir(parents=True, exist_ok=True)
        # torchvision takes a folder that a broken download left for a whole one
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=root) as folder:
            say(f"{name}: downloading into {place}")
            with contextlib.redirect_stdout(sys.stderr):
                made(folder, download=True)
            (Path(folder) / place.name).rename(place)
    except (OSError, RuntimeError) as error:  # RuntimeError: a wrong check sum
        if isinstance(error, OSError) and error.errno in DISK:
            raise explain_os_error(error, place) from error
        raise _fetch_failed(name, error) from error
    return place


def _fetch_failed(name: str, error: Exception) -> EdgeSSLError:
    said = " ".join(str(error).split())[:200]
    return EdgeSSLError(
        f"'{name}' could not be downloaded: {said}", hint="check the network, then try again"
    )


def _dataset_class(name: str) -> Any:
    try:
        from torchvision import datasets
    except ModuleNotFoundError as error:
        raise missing_extra(f"dataset '{name}'", error.name or "torchvision", "train") from error
    return getattr(datasets, PLACES[name][1])


def _made(name: str, **options: object) -> Any:
    """Return torchvision's dataset, which looks at files and never at the network."""
    made = _dataset_class(name)
    place = datasets_folder() / PLACES[name][0]
    root = place if name == "imagenet" else place.parent
    try:
        return made(root, **options)
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        if "scipy" in str(error).lower():
            raise missing_extra(f"dataset '{name}'", "scipy", "train") from error
        fetch = f"edgessl data prepare {name} --download"
        hint = BY_HAND[name].format(place=place) if name in BY_HAND else fetch
        if not place.exists():
            raise not_there(name, "", hint) from error
        said = " ".join(str(error).split("You can use")[0].split())[:200]
        if name not in BY_HAND:
            hint = f"remove {place}, then: {fetch}"
        raise not_there(name, f" as it should be: {said}", hint) from error


def _arrays(name: str, split: str, made: Any) -> ImageSet:
    pixels: NDArray[np.uint8] = made.data
    return ImageSet(
        name=f"{name}:{split}",
        items=tuple(f"{name}:{split}#{i}" for i in range(len(pixels))),
        load=lambda position: pixels[position],
        labels=np.asarray(made.targets, np.int64),
        class_names=tuple(made.classes),
    )


def _files(name: str, split: str, made: Any, class_names: list[str]) -> ImageSet:
    """Build the set of a dataset of files, whose ``loader=str`` gives paths for pictures."""
    pairs = list(_pairs(made))
    root = datasets_folder() / PLACES[name][0]
    paths = [Path(path) for path, _ in pairs]
    items = tuple(path.relative_to(root).as_posix() for path in paths)
    load, mode = decoders(paths, items)
    labels = np.array([label for _, label in pairs], np.int64)
    return ImageSet(
        f"{name}:{split}", items, load, labels, tuple(class_names), mode=mode, paths=tuple(paths)
    )


def _pairs(made: Any) -> Iterator[tuple[str, int]]:
    for i in range(len(made)):
        path, label = made[i]
        yield path, int(label)
