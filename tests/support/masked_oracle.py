"""The masked host: the slow, independent form of the slim pass that slicing is checked against.

Weights are multiplied by 0/1 masks on output and input channels; BatchNorms hold the slim net's
values (its own, or the host's where they are shared) on kept channels and zero affine elsewhere.
It runs at host width, as the first author's prototype does, but with masks that line up over
whole channel groups.
"""

import torch
from torch.func import functional_call


def masked_tensors(sliced, label):
    """Tensors of the masked host by stock name; gradients reach the host's parameters."""
    plan, norms, tensors = sliced.slims[label].plan, sliced.slims[label].norms, {}
    for name, parameter in sliced.host.named_parameters():  # with shared norms their affine too
        tensors[name] = parameter * _mask(plan, name, parameter)
    host = dict(sliced.host.named_parameters()) | dict(sliced.host.named_buffers())
    for key, norm in norms.items():
        stock = key.replace("/", ".")
        own = ("weight", "bias") if norm.affine else ()
        for part in (*own, "running_mean", "running_var"):
            name = f"{stock}.{part}"
            fill = torch.ones if part == "running_var" else torch.zeros
            (group,) = plan.axes[name]
            keep = torch.tensor(plan.groups[group].keep)
            wide = fill(host[name].shape, dtype=host[name].dtype)
            tensors[name] = wide.index_copy(0, keep, getattr(norm, part))
        tensors[f"{stock}.num_batches_tracked"] = norm.num_batches_tracked.clone()
    return tensors


def masked_forward(sliced, label, x):
    """Output of the masked host, (B, F) at host width; removed features are zero."""
    return functional_call(sliced.host, masked_tensors(sliced, label), (x,))


def _mask(plan, name, tensor):
    mask = torch.ones_like(tensor)
    for axis, group in enumerate(plan.axes[name]):
        if group is None:
            continue
        kept = torch.zeros(tensor.shape[axis], dtype=tensor.dtype)
        kept[torch.tensor(plan.groups[group].keep)] = 1
        mask = mask * kept.view([-1 if a == axis else 1 for a in range(tensor.ndim)])
    return mask
