"""Images in: sources, decoding, splits and the random views of pretraining.

A dataset whose name is in :data:`SOURCES` needs no path. Folders, lists, IDX files and caches
are recognised by what the path names (:func:`edgessl.data.sources.open_source`).

A dataset that is neither part of a package nor of the system lies in ``$EDGESSL_DATA``, by
default ``~/.cache/edgessl/data``, in the layout of torchvision. Nothing is downloaded unless
asked for: ``edgessl data prepare NAME --download``.
"""

from edgessl.core.registry import Entry, Table

# ``splits``: the first one is what the bare name means; ``download``: torchvision can fetch it
SOURCES = Table(
    "dataset",
    {
        "digits": Entry(
            target="edgessl.data.digits:open_digits",
            summary="handwritten digits shipped with scikit-learn, to try the chain",
            extra="train",
            facts={"images": 1797, "classes": 10, "pixels": 8, "licence": "CC-BY-4.0"},
        ),
        "fashion-mnist": Entry(
            target="edgessl.data.fashion_mnist:open_fashion_mnist",
            summary="grey pictures of clothes; Debian's dataset-fashion-mnist",
            facts={
                "images": 70000, "classes": 10, "pixels": 28, "licence": "MIT",
                "splits": "train, test", "download": True,
            },
        ),
        "cifar10": Entry(
            target="edgessl.data.torchvision_sets:open_cifar10",
            summary="tiny colour photos of 10 kinds of things",
            extra="train",
            facts={
                "images": 60000, "classes": 10, "pixels": 32, "licence": "none stated",
                "splits": "train, test", "download": True,
            },
        ),
        "cifar100": Entry(
            target="edgessl.data.torchvision_sets:open_cifar100",
            summary="tiny colour photos of 100 kinds of things",
            extra="train",
            facts={
                "images": 60000, "classes": 100, "pixels": 32, "licence": "none stated",
                "splits": "train, test", "download": True,
            },
        ),
        "aircraft": Entry(
            target="edgessl.data.torchvision_sets:open_aircraft",
            summary="FGVC-Aircraft: photos of aircraft by variant",
            extra="train",
            facts={
                "images": 10000, "classes": 100, "licence": "non-commercial research",
                "splits": "trainval, test, train, val", "download": True,
            },
        ),
        "flowers102": Entry(
            target="edgessl.data.torchvision_sets:open_flowers102",
            summary="Oxford flowers: photos of 102 kinds",
            extra="train",
            facts={
                "images": 8189, "classes": 102, "licence": "none stated",
                "splits": "train, val, test", "download": True,
            },
        ),
        "cars": Entry(
            target="edgessl.data.torchvision_sets:open_cars",
            summary="Stanford Cars: photos of cars by model and year; fetch it yourself",
            extra="train",
            facts={
                "images": 16185, "classes": 196, "licence": "non-commercial research",
                "splits": "train, test", "download": False,
            },
        ),
        "imagenet": Entry(
            target="edgessl.data.torchvision_sets:open_imagenet",
            summary="ImageNet 2012: photos of 1000 kinds of things; fetch it yourself",
            extra="train",
            facts={
                "images": 1331167, "classes": 1000, "licence": "non-commercial research",
                "splits": "train, val", "download": False,
            },
        ),
    },
)  # fmt: skip


def splits_of(name: str) -> tuple[str, ...]:
    """Return the names of a dataset's own splits, the one that the bare name means first."""
    listed = str(SOURCES[name].facts.get("splits", ""))
    return tuple(listed.split(", ")) if listed else ()
