"""What each operation of PyTorch does to channels: which axes carry them on, and which must agree.

Operations are those of ATen, that a network's own code comes down to. One that is not listed may
run on anything but channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from edgessl.encoders.groups import Label, Labels, Watcher

Given = dict[str, Any]  # an operation's arguments by the names of its schema
Rule = Callable[["Watcher", Given, Any], None]

# why what is most often met cannot be sliced; by a part of the operation's name
REASONS = {
    "layer_norm": "LayerNorm takes its statistics over all channels",
    "group_norm": "GroupNorm takes its statistics over groups of channels",
    "bmm": "attention multiplies channels with each other",
    "scaled_dot_product": "attention multiplies channels with each other",
    "softmax": "a softmax is taken over channels",
    "stack": "it concatenates channels",
    "split": "it splits channels",
    "unbind": "it splits channels",
    "pixel_shuffle": "it rearranges channels",
}
# beside those that PyTorch itself calls pointwise
ELEMENTWISE = {
    "hardswish", "gelu", "mish", "alias", "detach", "clone", "_to_copy", "copy", "empty_like",
    "zeros_like", "ones_like", "full_like",
}  # fmt: skip


def apply_rule(watcher: Watcher, func: Any, given: Given, result: Any) -> None:
    """Label the result of an operation.

    Args:
        watcher: Knows the labels of tensors.
        func: The ATen operation.
        given: Its arguments by name.
        result: What it returned.

    Raises:
        NotSliced: It mixes channels.
    """
    name = func._schema.name.removeprefix("aten::").rstrip("_")
    inputs = [tensor for value in given.values() for tensor in _tensors(value)]
    outputs = list(_tensors(result))
    if torch.Tag.nondeterministic_seeded in func.tags and "empty" not in name:
        raise watcher.refuse(f"it is random while training ({name})")
    rule = RULES.get(name)
    if rule is not None:
        rule(watcher, given, outputs[0])
    elif "batch_norm" in name:
        _batch_norm(watcher, given, outputs[0])
    elif torch.Tag.pointwise in func.tags or name in ELEMENTWISE:
        for output in outputs:
            _elementwise(watcher, inputs, output)
    elif any(label is not None for tensor in inputs for label in watcher.of(tensor)) or any(
        watcher.is_weight(tensor) for tensor in inputs
    ):
        why = next((text for part, text in REASONS.items() if part in name), None)
        raise watcher.refuse(why or f"it is not known whether '{name}' keeps channels apart")


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _convolution(watcher: Watcher, given: Given, output: Tensor) -> None:
    images, weight, bias = given["input"], given["weight"], given["bias"]
    if not watcher.is_weight(weight):
        raise watcher.refuse("its weights are computed (weight standardisation or the like)")
    if given["transposed"]:
        raise watcher.refuse("it is a transposed convolution")
    batch, inputs, *places = watcher.of(images)
    if batch is not None or any(label is not None for label in places):
        raise watcher.refuse("it convolves along the channels")
    groups, channels = given["groups"], images.shape[1]
    outputs = watcher.channels(weight, 0)
    if groups == 1:
        if inputs is None:
            raise watcher.refuse("it convolves what was made of all channels")
        watcher.same((inputs, watcher.channels(weight, 1)))
    elif groups == channels == weight.shape[0]:
        outputs = watcher.same((inputs, outputs))
    else:
        raise watcher.refuse(
            f"its convolution works in {groups} groups of {channels // groups} channels"
        )
    if bias is not None:
        watcher.same((outputs, watcher.channels(bias, 0)))
    watcher.mark(output, (None, outputs, *(None for _ in places)))
    watcher.reduced(images, output)


def _batch_norm(watcher: Watcher, given: Given, output: Tensor) -> None:
    batch, channels, *places = watcher.of(given["input"])
    if batch is not None or channels is None or any(label is not None for label in places):
        raise watcher.refuse("it normalises along another axis than the channels")
    for part in ("weight", "bias", "running_mean", "running_var"):
        tensor = given.get(part)
        if tensor is None:
            continue
        if not watcher.is_weight(tensor):
            raise watcher.refuse("its weights are computed")
        watcher.same((channels, watcher.channels(tensor, 0)))
    watcher.mark(output, (None, channels, *places))


def _pooling(watcher: Watcher, given: Given, output: Tensor) -> None:
    maps = given["input"] if "input" in given else given["self"]
    labels = watcher.of(maps)
    if any(label is not None for label in labels[2:]):
        raise watcher.refuse("it pools along the channels")
    watcher.mark(output, labels)
    if output.shape[-1] > 1:
        watcher.reduced(maps, output)


def _pad(watcher: Watcher, given: Given, output: Tensor) -> None:
    labels, pad = watcher.of(given["self"]), given["pad"]
    padded = [i for i in range(len(pad) // 2) if pad[2 * i] or pad[2 * i + 1]]
    if any(labels[len(labels) - 1 - i] is not None for i in padded):
        raise watcher.refuse("it pads channels with zeros")
    watcher.mark(output, labels)


def _reduction(watcher: Watcher, given: Given, output: Tensor) -> None:
    tensor, labels = given["self"], watcher.of(given["self"])
    dims = given.get("dim")
    dims = range(tensor.ndim) if dims is None or dims == [] else dims
    gone = {d % tensor.ndim for d in ([dims] if isinstance(dims, int) else dims)}
    if any(labels[axis] is not None for axis in gone):
        raise watcher.refuse("it takes a sum or mean over all channels")
    keep = output.ndim == tensor.ndim
    watcher.mark(
        output,
        [
            None if axis in gone else label
            for axis, label in enumerate(labels)
            if keep or axis not in gone
        ],
    )


def _view(watcher: Watcher, given: Given, output: Tensor) -> None:
    """Keep an axis of channels where as many elements stand before it, and in it, as did."""
    tensor = given["self"]
    labels: list[Label] = [None] * output.ndim
    for axis, label in enumerate(_all_channels(watcher, tensor)):
        if label is None or tensor.shape[axis] == 1:
            continue
        where = [
            new
            for new, size in enumerate(output.shape)
            if size == tensor.shape[axis]
            and output.shape[:new].numel() == tensor.shape[:axis].numel()
        ]
        if not where:
            computed = "its weights are computed (weight standardisation or the like)"
            mixed = "it mixes channels with another axis (a reshape)"
            raise watcher.refuse(computed if watcher.is_weight(tensor) else mixed)
        labels[where[0]] = label
    watcher.mark(output, labels)


def _transpose(watcher: Watcher, given: Given, output: Tensor) -> None:
    order = list(range(output.ndim))
    one, other = given.get("dim0", 0), given.get("dim1", 1)  # t() has neither
    order[one], order[other] = order[other], order[one]
    _reorder(watcher, given["self"], output, order)


def _permute(watcher: Watcher, given: Given, output: Tensor) -> None:
    _reorder(watcher, given["self"], output, given["dims"])


def _reorder(watcher: Watcher, tensor: Tensor, output: Tensor, order: Sequence[int]) -> None:
    labels = _all_channels(watcher, tensor)
    watcher.mark(output, [labels[axis] for axis in order])


def _expand(watcher: Watcher, given: Given, output: Tensor) -> None:
    labels = _all_channels(watcher, given["self"])
    watcher.mark(output, [*(None for _ in range(output.ndim - len(labels))), *labels])


def _all_channels(watcher: Watcher, tensor: Tensor) -> Labels:
    """Return the labels of a tensor's axes; those of a weight are channels from here on."""
    for axis, size in enumerate(tensor.shape) if watcher.is_weight(tensor) else ():
        if size > 1:
            watcher.channels(tensor, axis)
    return watcher.of(tensor)


def _slice(watcher: Watcher, given: Given, output: Tensor) -> None:
    tensor, labels = given["self"], watcher.of(given["self"])
    axis = given.get("dim", 0) % tensor.ndim
    if labels[axis] is not None and output.shape != tensor.shape:
        raise watcher.refuse("it splits channels")
    watcher.mark(output, labels)


def _concatenation(watcher: Watcher, given: Given, output: Tensor) -> None:
    joined = given["tensors"]
    axis, labels = given.get("dim", 0) % output.ndim, [watcher.of(tensor) for tensor in joined]
    if any(each[axis] is not None for each in labels):
        raise watcher.refuse("it concatenates channels")
    watcher.mark(output, [watcher.same(each) for each in zip(*labels, strict=True)])


def _matrix(watcher: Watcher, given: Given, output: Tensor) -> None:
    """Follow a Linear: rows times a transposed weight, with or without a bias."""
    left, right = (given["mat1"] if "mat1" in given else given["self"]), given["mat2"]
    (rows, inner), (other, outputs) = watcher.of(left), watcher.of(right)
    if inner is None or other is None or outputs is None or rows is not None:
        raise watcher.refuse("attention multiplies channels with each other")
    watcher.same((inner, other))
    if "mat1" in given:
        watcher.same((outputs, watcher.channels(given["self"], 0)))
    watcher.mark(output, (None, outputs))


def _elementwise(watcher: Watcher, inputs: Sequence[Tensor], output: Tensor) -> None:
    labels: list[Label] = [None] * output.ndim
    for axis in range(-1, -output.ndim - 1, -1):
        met = [t for t in inputs if t.ndim >= -axis and t.shape[axis] > 1]
        label = watcher.same([None, *(watcher.of(t)[axis] for t in met)])
        for tensor in met if label is not None else ():
            if watcher.of(tensor)[axis] is None and not watcher.is_weight(tensor):
                raise watcher.refuse("its channels meet another axis")
            watcher.same((label, watcher.channels(tensor, axis)))
        labels[axis] = label
    watcher.mark(output, labels)


RULES: dict[str, Rule] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _pooling,
    "avg_pool2d": _pooling,
    "_adaptive_avg_pool2d": _pooling,
    "adaptive_max_pool2d": _pooling,
    "upsample_nearest2d": _pooling,
    "upsample_bilinear2d": _pooling,
    "constant_pad_nd": _pad,
    "reflection_pad2d": _pooling,
    "mean": _reduction,
    "sum": _reduction,
    "amax": _reduction,
    "view": _view,
    "_unsafe_view": _view,
    "unsqueeze": _view,
    "squeeze": _view,
    "t": _transpose,
    "transpose": _transpose,
    "permute": _permute,
    "expand": _expand,
    "cat": _concatenation,
    "slice": _slice,
    "addmm": _matrix,
    "mm": _matrix,
}
