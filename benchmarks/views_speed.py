"""Speed of the batched views against torchvision's per-image pipeline, on stored uint8 images.

    python benchmarks/views_speed.py --size 32 96 128 224 --images 32 --rounds 7

Both make the two views of BYOL from images that are already decoded. Rounds are interleaved, so a
slow moment of the machine meets both; medians and their ratio are printed, one line per size.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from edgessl.core.artifact import IMAGENET_MEAN, IMAGENET_STD
from edgessl.data.view_specs import ViewSpec, view_specs
from edgessl.data.views import Views


def torchvision_pipeline(spec: ViewSpec, from_pil: bool) -> Callable:
    """The usual transform of one image that a spec stands for."""
    kernel = 2 * spec.blur_radius + 1
    jitter = v2.ColorJitter(spec.brightness, spec.contrast, spec.saturation, spec.hue)
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                spec.size,
                spec.crop_scale,
                spec.crop_ratio,
                v2.InterpolationMode(spec.interpolation),
                antialias=True,
            ),
            v2.RandomHorizontalFlip(spec.flip),
            v2.RandomApply([jitter], spec.jitter),
            v2.RandomGrayscale(spec.gray),
            v2.RandomApply([v2.GaussianBlur(kernel, spec.blur_sigma)], spec.blur),
            v2.RandomSolarize(128, spec.solarize),
            v2.ToImage() if from_pil else v2.Identity(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def measure(size: int, images: int, rounds: int) -> str:
    """Return one line of the table."""
    side = size if size <= 64 else round(size * 8 / 7)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (images, 8, 8, 3), dtype=np.uint8)
    pictures = [Image.fromarray(c).resize((side, side), Image.Resampling.BICUBIC) for c in coarse]
    stored = torch.from_numpy(np.stack([np.asarray(p) for p in pictures]))
    tensors = list(stored.permute(0, 3, 1, 2).contiguous())
    specs = view_specs("byol_asym", size)
    views = Views(specs, IMAGENET_MEAN, IMAGENET_STD, seed=0)
    on_pil = [torchvision_pipeline(spec, from_pil=True) for spec in specs]
    on_tensor = [torchvision_pipeline(spec, from_pil=False) for spec in specs]
    runs: dict[str, Callable[[], list[Tensor]]] = {
        "edgessl": lambda: views(stored, np.arange(images), epoch=0),
        "v2 on PIL": lambda: [torch.stack([t(p) for p in pictures]) for t in on_pil],
        "v2 on tensors": lambda: [torch.stack([t(x) for x in tensors]) for t in on_tensor],
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if round_number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    rate = {name: images / median(values) for name, values in seconds.items()}
    ratios = ", ".join(f"{rate['edgessl'] / rate[name]:.1f} x {name}" for name in list(runs)[1:])
    rates = ", ".join(f"{name} {value:.0f}" for name, value in rate.items())
    return f"{side} -> {size} px: {rates} images/s (two views each); edgessl is {ratios}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[32, 96, 128, 224])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), batch {arguments.images}")
    for size in arguments.size:
        print(measure(size, arguments.images, arguments.rounds))


if __name__ == "__main__":
    main()
