"""The Barlow loss of a batch that several processes share, each with its own rows."""

import torch
from torch import distributed

from edgessl.losses.barlow import Codes, barlow_loss

LAM, SCALE = 0.0051, 0.1


def shared_loss(weight, views, *, sync):
    """Of two linear codes, with a stop-gradient term as in cross distillation."""
    a, b = (Codes(view @ weight, sync=sync) for view in views)
    contrast = barlow_loss(a, b, lam=LAM, scale_loss=SCALE)
    return contrast + 0.3 * barlow_loss(a, b.detach(), lam=LAM, scale_loss=SCALE)


def one_process(rank, store, parts, sync, answers):
    """Answer with the loss and the gradient that a data-parallel wrapper would leave.

    Args:
        rank: Of this process.
        store: File that the processes meet at.
        parts: Weight, and for every process its rows of both views, as lists.
        sync: Whether statistics are those of all rows.
        answers: Queue.
    """
    torch.set_num_threads(1)
    rows = parts["rows"]
    meeting = distributed.FileStore(store, len(rows))
    distributed.init_process_group("gloo", store=meeting, rank=rank, world_size=len(rows))
    weight = torch.tensor(parts["weight"], dtype=torch.float64, requires_grad=True)
    views = [torch.tensor(view, dtype=torch.float64) for view in rows[rank]]
    loss = shared_loss(weight, views, sync=sync)
    loss.backward()
    distributed.all_reduce(weight.grad)
    answers.put((rank, float(loss.detach()), (weight.grad / len(rows)).tolist()))
    distributed.destroy_process_group()
