"""Any convolutional network of timm, by its name there, with a width multiplier.

The stock network is watched once (:mod:`edgessl.encoders.groups`) to learn its channel groups;
at another width every group is scaled and the layers are made again. At 1x it is timm's own
module. timm's code is Apache-2.0; pretrained weights have licences of their own.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import timm
import torch
from timm.layers.drop import DropPath
from torch import nn

from edgessl.core.errors import InvalidInput, UsageProblem
from edgessl.encoders.base import Architecture, Axes
from edgessl.encoders.edits import Edit
from edgessl.encoders.groups import ChannelGroups, NotSliced, channel_groups
from edgessl.encoders.rescaling import rescale, stem_edits

FAMILY = "timm:"


@dataclass(frozen=True, slots=True)
class Watched:
    """What watching a stock network told.

    Attributes:
        head: Name of its classifier.
        groups: Its channel groups; None where it cannot be sliced.
        problem: Why it cannot be, the module first; empty where it can.
        small_stem: What keeps the resolution of small images.
    """

    head: str
    groups: ChannelGroups | None
    problem: str = ""
    small_stem: tuple[Edit, ...] = ()


@cache
def timm_architecture(name: str) -> Architecture:
    """Return the architecture of a timm network.

    One that cannot be sliced is built at 1x only and has no channel groups: it can teach.

    Args:
        name: As ``timm.list_models`` spells it; a tag of pretrained weights may follow a dot.

    Raises:
        UsageProblem: timm has no such network, or no such weights of it.
        InvalidInput: It does not end in one Linear layer.
    """
    _check_name(name)
    watched = _watch(name)
    return Architecture(
        name=f"{FAMILY}{name}",
        build=partial(build, name),
        head=watched.head,
        channel_axes=lambda _: _axes(name),
        connections=lambda _: (),  # those of the stock net at every width
        small_stem=watched.small_stem,
        stock_class=f"timm.create_model('{name}', num_classes={{classes}})",
        weights=f"{FAMILY}{name}" if timm.is_model_pretrained(name) else None,
    )


def build(name: str, width: float, classes: int) -> nn.Module:
    """Build a timm network at a width, freshly initialised, dropout and stochastic depth off.

    Raises:
        InvalidInput: It cannot be sliced, and the width is not 1; or it does not run at it.
    """
    if width != 1:
        _try(name, width)
    shapes_only = torch.get_default_device().type == "meta"
    # some networks compute with numbers while they are built
    with torch.random.fork_rng(devices=[], enabled=shapes_only), torch.device("cpu"):
        net = _scaled(name, width, classes)
    return net.to("meta") if shapes_only else net


def _scaled(name: str, width: float, classes: int) -> nn.Module:
    net = timm.create_model(name, num_classes=classes)
    for module in net.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
        elif isinstance(module, DropPath):
            module.drop_prob = 0.0
        if hasattr(module, "drop_rate"):  # a functional dropout
            module.drop_rate = 0.0  # type: ignore[assignment]
    if width != 1:
        rescale(net, _axes(name), width)
    return net


@cache
def _try(name: str, width: float) -> None:
    """Run a rescaled network on shapes: its code may count on the stock numbers of channels."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        net = _scaled(name, width, 1).to("meta").eval()
    try:
        with torch.no_grad():
            net(torch.empty(2, 3, *_sides(net), device="meta"))
    except Exception as error:  # noqa: BLE001  (any, from code of others)
        raise InvalidInput(
            f"{FAMILY}{name} does not run at {width:g}x: {_first_line(error)}",
            hint="its code counts on its stock channels: choose another encoder, or 1x",
        ) from None


@cache
def _watch(name: str) -> Watched:
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        net = _scaled(name, 1.0, 3)
    head = _head(name, net)
    net.to("meta")
    height, width = _sides(net)
    try:
        _check_buffers(net)
        groups = channel_groups(net, height, width)
    except NotSliced as problem:
        return Watched(head, None, str(problem))
    except Exception as error:  # noqa: BLE001  (any, from code of others)
        return Watched(head, None, f"the net: it does not run on shapes: {_first_line(error)}")
    return Watched(head, groups, small_stem=stem_edits(net, groups.reductions, height))


def _axes(name: str) -> Axes:
    watched = _watch(name)
    if watched.groups is None:
        raise InvalidInput(
            f"{FAMILY}{name} cannot be sliced, at {watched.problem}",
            hint="it can be a teacher at 1x; for encoders see: edgessl list encoders",
        )
    return watched.groups.axes


def _head(name: str, net: nn.Module) -> str:
    """Return the name of the classifier."""
    last = getattr(net, "get_classifier", lambda: None)()
    if not isinstance(last, nn.Linear):
        raise InvalidInput(
            f"{FAMILY}{name} ends in a {type(last).__name__}, expected one Linear layer",
            hint="choose another network of timm",
        )
    return next(path for path, module in net.named_modules() if module is last)


def _check_buffers(net: nn.Module) -> None:
    for path, module in net.named_modules():
        held = [part for part, _ in module.named_buffers(recurse=False)]
        if held and not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            raise NotSliced(
                f"{path or 'the net'}: it holds a tensor that is not learnt ({held[0]})"
            )


def _sides(net: nn.Module) -> tuple[int, int]:
    config: Any = net.default_cfg
    _, height, width = config["input_size"]
    return height, width


def _check_name(name: str) -> None:
    if timm.is_model(name):
        architecture, _, tag = name.partition(".")
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
        if tag and tag not in tags:
            raise UsageProblem(
                f"timm has no weights '{tag}' of {architecture}",
                hint=f"known: {', '.join(tags)}" if tags else f"leave '.{tag}' out",
            )
        return
    close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    raise UsageProblem(
        f"timm {timm.__version__} has no network called '{name}'",
        hint=f"did you mean {' or '.join(f'timm:{each}' for each in close)}?"
        if close
        else "python -c 'import timm; print(timm.list_models())' lists them",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
