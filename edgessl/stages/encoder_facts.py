"""What ``edgessl list encoders`` shows of a network that another package builds."""

from __future__ import annotations

import torch

from edgessl.core.errors import InvalidInput
from edgessl.encoders import ENCODERS
from edgessl.stages.cost_nets import operations_of


def encoder_facts(name: str) -> dict[str, str | float | bool]:
    """Build an encoder at 1x on shapes alone, and say what it is.

    Args:
        name: A name of the table of encoders, or one of a family (``timm:resnet18``).

    Returns:
        ``features_1x``: its features; ``imagenet_weights``: whether there are any;
        ``macs_1x_224_m``: million MACs at 1x and 224 px with a head of 1,000 classes, or
        ``not_counted``: why it does not take such images; ``sliced``: ``yes``, or why it cannot
        be had at other widths than 1x.

    Raises:
        UsageProblem: There is no such encoder.
        InvalidInput: It does not end in one Linear layer.
        MissingExtra: The package of its family is not installed.
    """
    architecture = ENCODERS.load(name)
    with torch.device("meta"):
        network = architecture.network(1.0, classes=1000)
    facts: dict[str, str | float | bool] = {
        "features_1x": network.get_submodule(architecture.head).in_features,
        "imagenet_weights": architecture.weights is not None,
    }
    try:
        facts["macs_1x_224_m"] = round(operations_of(network, 224)["macs"] / 1e6, 1)
    except InvalidInput as problem:
        facts["not_counted"] = problem.message
    try:
        architecture.channel_axes(network)
        with torch.device("meta"):
            architecture.network(0.5, classes=1000)
        facts["sliced"] = "yes"
    except InvalidInput as problem:
        facts["sliced"] = f"no: {problem.message}"
    return facts
