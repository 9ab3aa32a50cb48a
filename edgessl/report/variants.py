"""How the rivals are named, ordered and drawn: the same everywhere in the report.

A variant has a colour and a mark of its own (never colour alone); how it was measured shows in
the mark too: filled when the net was fine-tuned, hollow for a probe on frozen features.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgessl.report.tolerant import width_number

CHAIN = ("extract", "export", "bench")  # stages that only carry a trained net along
RIVALS = ("pixels", "scratch", "imagenet")  # what pretraining without labels has to beat
NAMES = {
    "pixels": "Raw pixels", "scratch": "From scratch", "imagenet": "ImageNet weights",
    "sacl-xd": "SACL+XD", "sacl": "SACL", "xd": "XD", "barlow": "Barlow Twins",
    "simclr": "SimCLR", "moco-v2": "MoCo v2", "light-moco": "light-MoCo", "byol": "BYOL",
    "ssl-small": "SSL-Small", "seed": "SEED", "disco": "DisCo", "rekd-style": "ReKD style",
    "oss-style": "OSS style", "supervised": "Supervised, all labels", "onnx": "ONNX",
    "openvino": "OpenVINO", "tflite": "TFLite", "tensorrt": "TensorRT",
    "pytorch": "PyTorch", "safetensors": "PyTorch",
}  # fmt: skip
PROTOCOLS = {"linear_top1": "linear probe", "knn_top1": "kNN", "top1": "fine-tuned"}
BALANCED = {"balanced_top1": "top1", "linear_balanced": "linear_top1"}
WEIGHTS = "imagenet+"  # before a method that started from ImageNet weights
TUNED = ", fine-tuned"  # behind a variant whose features were trained with labels


@dataclass(frozen=True, slots=True)
class Look:
    """CSS class that sets the colour, and the shape of the mark."""

    css: str
    shape: str


LOOKS = {
    "pixels": Look("v-pixels", "diamond"),
    "scratch": Look("v-scratch", "square"),
    "imagenet": Look("v-imagenet", "triangle"),
}
METHOD, METHOD_ON_WEIGHTS = Look("v-method", "round"), Look("v-both", "plus")


def look(variant: str) -> Look:
    """Return how a variant is drawn."""
    if variant.startswith(WEIGHTS):
        return METHOD_ON_WEIGHTS
    return LOOKS.get(variant, METHOD)


def is_narrow(width: str) -> bool:
    """Whether a net of this width has fewer channels than the stock weights."""
    return 0 < width_number(width) < 1


def name(variant: str, width: str = "") -> str:
    """Name a variant, a method or a target for people; with its width where that matters."""
    if variant == "imagenet" and is_narrow(width):
        return "First channels of ImageNet weights"
    if variant.startswith(WEIGHTS):
        return f"ImageNet + {name(variant.removeprefix(WEIGHTS))}"
    method = variant.removesuffix(TUNED)
    return NAMES.get(method, method) + variant[len(method) :]


def short_name(variant: str) -> str:
    """Name a variant where there is little room."""
    short = {"pixels": "pixels", "scratch": "scratch", "imagenet": "ImageNet"}
    return short.get(variant) or name(variant).replace("ImageNet + ", "ImageNet+")


def full_name(variant: str, metric: str, width: str = "") -> str:
    """Name a variant with how it was measured."""
    how = measurement(variant, metric)
    return name(variant, width) + (f", {how}" if how else "")


def measurement(variant: str, metric: str) -> str:
    """Name how a variant was measured; empty for what is trained from scratch, as that says it."""
    metric = BALANCED.get(metric, metric)
    if variant == "pixels":
        return "kNN" if metric == "knn_top1" else "logistic regression"
    return "" if (variant, metric) == ("scratch", "top1") else PROTOCOLS.get(metric, metric)


def is_pretrained(variant: str) -> bool:
    """Whether a variant was pretrained here, on images without labels."""
    return variant not in RIVALS


def order(variant: str) -> tuple[int, str]:
    """Sort key: the rivals first, then methods, then methods on ImageNet weights."""
    if variant in RIVALS:
        return RIVALS.index(variant), ""
    return (4 if variant.startswith(WEIGHTS) else 3), variant
