"""Random views: each operation against torchvision, and randomness that only its key decides."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="views need torch")
pytest.importorskip("torchvision", reason="the independent implementation")
stats = pytest.importorskip("scipy.stats", reason="Kolmogorov-Smirnov test")

from torchvision.transforms import v2  # noqa: E402
from torchvision.transforms.v2 import functional as TF  # noqa: E402

from edgessl.core.errors import RecipeInvalid  # noqa: E402
from edgessl.data.keyed_random import uniforms  # noqa: E402
from edgessl.data.view_specs import (  # noqa: E402
    PRESETS,
    Parameters,
    ViewSpec,
    draw_parameters,
    view_specs,
)
from edgessl.data.views import Views, render  # noqa: E402

NOISE = torch.rand(1, 3, 40, 50, generator=torch.Generator().manual_seed(0))
SQUARE = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(1))
# far enough from 0 and 1 that no colour change below needs the clamp
MUTED = 0.35 + 0.3 * SQUARE
SMOOTH = torch.nn.functional.interpolate(SQUARE[:, :, :5, :5], (48, 48), mode="bicubic").clamp(0, 1)
EVERYTHING = ViewSpec(size=48, interpolation="bilinear", jitter=1, gray=1, blur=1, solarize=1)


def chosen(image: torch.Tensor, **changed: float) -> Parameters:
    """Parameters of one image that change nothing but what is named."""
    values: dict[str, float] = dict.fromkeys((f.name for f in fields(Parameters)), 0.0)
    values |= {"height": image.shape[2], "width": image.shape[3]}
    values |= {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0} | changed
    return Parameters(**{name: np.array([value]) for name, value in values.items()})


def view(image: torch.Tensor, **changed: float) -> torch.Tensor:
    return render(image * 255, EVERYTHING, chosen(image, **changed))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("box", [(0, 0, 40, 50), (3, 5, 30, 20), (31, 7, 9, 43)])
def test_crop_and_flip_are_those_of_torchvision(interpolation, size, box):
    spec = ViewSpec(size=size, interpolation=interpolation)
    mode = v2.InterpolationMode(interpolation)
    want = TF.resized_crop(NOISE, *box, [size, size], mode, antialias=True).clamp(0, 1)
    drawn = chosen(NOISE, **dict(zip(("top", "left", "height", "width"), box, strict=True)))
    torch.testing.assert_close(render(NOISE * 255, spec, drawn), want, atol=2e-6, rtol=0)
    flipped = render(NOISE * 255, spec, replace(drawn, flip=np.array([True])))
    torch.testing.assert_close(flipped, TF.hflip(want), atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("changed", "operation"),
    [
        ({}, lambda x: x),
        ({"brightness": 1.3}, lambda x: TF.adjust_brightness(x, 1.3)),
        ({"contrast": 0.6}, lambda x: TF.adjust_contrast(x, 0.6)),
        ({"saturation": 1.4}, lambda x: TF.adjust_saturation(x, 1.4)),
        ({"saturation": 0.0}, lambda x: TF.rgb_to_grayscale(x, 3)),
        ({"solarize": True}, lambda x: TF.solarize(x, 128 / 255)),
        (
            {"brightness": 0.9, "contrast": 1.2, "saturation": 0.7},
            lambda x: TF.adjust_saturation(
                TF.adjust_contrast(TF.adjust_brightness(x, 0.9), 1.2), 0.7
            ),
        ),
    ],
)
def test_colour_changes_are_those_of_torchvision(changed, operation):
    # torchvision rounds the luma weight of red to 0.2989
    torch.testing.assert_close(view(MUTED, **changed), operation(MUTED), atol=2e-4, rtol=0)


@pytest.mark.parametrize(("size", "sigma"), [(48, 0.1), (48, 1.9), (128, 1.7)])
def test_blur_is_that_of_torchvision(size, sigma):
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(2))
    spec = replace(EVERYTHING, size=size)
    side = 2 * spec.blur_radius + 1
    got = render(image * 255, spec, chosen(image, sigma=sigma))
    want = TF.gaussian_blur(image, [side, side], [sigma, sigma])
    torch.testing.assert_close(got, want, atol=2e-6, rtol=0)


def test_hue_keeps_brightness_and_turns_red_towards_yellow():
    turned = view(MUTED, hue=0.07)
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    torch.testing.assert_close((turned * luma).sum(1), (MUTED * luma).sum(1), atol=1e-5, rtol=0)
    red = torch.tensor([0.6, 0.4, 0.4])[:, None, None].expand(1, 3, 48, 48)
    r, g, b = view(red, hue=1 / 6)[0].mean((1, 2)).tolist()
    assert min(r, g) > b + 0.1


def test_uniforms_are_uniform_and_independent_of_each_other():
    u = uniforms(3, 1, np.arange(4000), 0, 8)
    assert 0 <= u.min() <= u.max() < 1
    assert stats.kstest(u.ravel(), "uniform").pvalue > 0.01
    others = [
        uniforms(4, 1, np.arange(4000), 0, 8),
        uniforms(3, 2, np.arange(4000), 0, 8),
        uniforms(3, 1, np.arange(4000), 1, 8),
        uniforms(3, 1, np.arange(1, 4001), 0, 8),
        np.roll(u, 1, axis=1),
    ]
    for other in others:
        assert abs(np.corrcoef(u.ravel(), other.ravel())[0, 1]) < 4 / math.sqrt(u.size)


def test_uniforms_are_the_splitmix64_stream():
    """The published first outputs for seed 1234567, by writing them out with plain integers."""
    mask = (1 << 64) - 1

    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        return z ^ (z >> 31)

    gamma = 0x9E3779B97F4A7C15
    assert mix(1234567 + gamma) == 6457827717110365317
    key = 0
    for word in (9, 2, 1, 77):  # seed, epoch, view, index
        key = mix((key ^ word) + gamma & mask)
    want = [(mix(key + c * gamma & mask) >> 11) / 2**53 for c in (1, 2, 3)]
    assert uniforms(9, 2, np.array([77]), 1, 3).tolist() == [want]


def test_a_view_depends_on_its_key_only():
    images = torch.randint(0, 256, (40, 24, 24, 3), dtype=torch.uint8)
    views = Views(view_specs("byol_asym", 24), (0.5,) * 3, (0.2,) * 3, seed=5)
    whole = views(images, np.arange(40), epoch=3)
    torch.manual_seed(99)
    order = np.random.default_rng(0).permutation(40)[:17]
    some = views(images[torch.as_tensor(order)], torch.as_tensor(order), epoch=3)
    for a, b in zip(whole, some, strict=True):
        torch.testing.assert_close(a[torch.as_tensor(order)], b, atol=1e-5, rtol=0)
    assert (whole[0] - whole[1]).abs().mean() > 0.1
    assert (views(images, np.arange(40), epoch=4)[0] - whole[0]).abs().mean() > 0.1
    assert whole[0].shape == (40, 3, 24, 24)
    assert whole[0].dtype == torch.float32
    assert whole[0].is_contiguous(memory_format=torch.channels_last)


def test_chunks_of_a_large_batch_do_not_show(monkeypatch):
    images = torch.randint(0, 256, (10, 16, 16, 3), dtype=torch.uint8)
    views = Views(view_specs("moco_v2", 16), (0.5,) * 3, (0.2,) * 3, seed=0)
    whole = views(images, np.arange(10), epoch=0)
    monkeypatch.setattr("edgessl.data.views.CHUNK_CPU", 3 * 16 * 16 * 4)
    for a, b in zip(whole, views(images, np.arange(10), epoch=0), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_one_option_does_not_shift_the_randomness_of_another():
    plain, busy = ViewSpec(size=32), replace(EVERYTHING, size=32)
    key = {"seed": 0, "epoch": 0, "indices": np.arange(50), "view": 0}
    a, b = draw_parameters(plain, (36, 36), **key), draw_parameters(busy, (36, 36), **key)
    np.testing.assert_array_equal(a.top, b.top)
    np.testing.assert_array_equal(a.flip, b.flip)


@pytest.mark.parametrize("image_size", [(64, 64), (40, 90)])
def test_crops_are_distributed_as_those_of_torchvision(image_size):
    n, spec = 3000, ViewSpec(size=32)
    drawn = draw_parameters(spec, image_size, seed=1, epoch=0, indices=np.arange(n), view=0)
    torch.manual_seed(0)
    image = torch.empty(3, *image_size)
    crop = v2.RandomResizedCrop(32, spec.crop_scale, spec.crop_ratio)
    wants = [crop.make_params([image]) for _ in range(n)]
    ours = {
        "area": drawn.height * drawn.width,
        "ratio": drawn.width / drawn.height,
        "middle": drawn.top + drawn.height / 2,
        "centre": drawn.left + drawn.width / 2,
    }
    theirs = {
        "area": [w["height"] * w["width"] for w in wants],
        "ratio": [w["width"] / w["height"] for w in wants],
        "middle": [w["top"] + w["height"] / 2 for w in wants],
        "centre": [w["left"] + w["width"] / 2 for w in wants],
    }
    for name, values in ours.items():
        assert stats.ks_2samp(values, theirs[name]).pvalue > 1e-3, name
    assert (drawn.top + drawn.height <= image_size[0]).all()
    assert (drawn.left + drawn.width <= image_size[1]).all()


def test_whole_views_have_the_brightness_and_spread_of_torchvision():
    """Fixed order, one clamp and the other hue must not change the statistics much."""
    n, spec = 400, view_specs("byol_asym", 32)[1]
    picture = (SMOOTH[0] * 255).to(torch.uint8)
    stored = picture.permute(1, 2, 0).expand(n, -1, -1, -1).contiguous()
    ours = Views([spec], (0,) * 3, (1,) * 3, seed=0)(stored, np.arange(n), 0)[0]
    torch.manual_seed(0)
    pipeline = v2.Compose(
        [
            v2.RandomResizedCrop(32, spec.crop_scale, interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(3, (0.1, 2.0))], 0.1),
            v2.RandomSolarize(128, 0.2),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    theirs = torch.stack([pipeline(picture) for _ in range(n)])
    for measure in (lambda x: x.mean((1, 2, 3)), lambda x: x.std((1, 2, 3))):
        a, b = measure(ours), measure(theirs)
        error = math.sqrt((a.var() + b.var()) / n)
        assert abs(a.mean() - b.mean()) < 4 * error
        assert 0.75 < a.std() / b.std() < 1.33


@pytest.mark.parametrize("name", PRESETS)
def test_presets_give_finite_views_at_the_size_asked_for(name):
    specs = view_specs(name, 20, flip=0.0)
    images = torch.randint(0, 256, (6, 24, 24, 3), dtype=torch.uint8)
    for x in Views(specs, (0.5,) * 3, (0.2,) * 3, seed=0)(images, np.arange(6), 0):
        assert torch.isfinite(x).all()
        assert x.shape == (6, 3, 20, 20)
    assert all(spec.flip == 0 for spec in specs)


def test_byol_views_have_the_published_values():
    first, second = view_specs("byol_asym", 224)
    assert (first.blur, first.solarize, second.blur, second.solarize) == (1.0, 0.0, 0.1, 0.2)
    for spec in (first, second):
        assert (spec.brightness, spec.contrast, spec.saturation, spec.hue) == (0.4, 0.4, 0.2, 0.1)
        assert (spec.jitter, spec.gray, spec.flip) == (0.8, 0.2, 0.5)
        assert (spec.crop_scale, spec.interpolation) == ((0.08, 1.0), "bicubic")
        assert 2 * spec.blur_radius + 1 == 23


def test_unknown_views_are_refused_by_name():
    with pytest.raises(RecipeInvalid, match="byol_asim") as caught:
        view_specs("byol_asim", 32)
    assert "byol_asym" in caught.value.hint
