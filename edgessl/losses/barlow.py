"""Redundancy reduction between two batches of embeddings.

Source: Barlow Twins, arXiv:2103.03230, equation 1, with the loss scale of solo-learn.
Shapes: N batch, D embedding.

Deviation: with N < D the D x D matrix C is never built. Its squared entries sum to
sum_kl (A A^T)_kl (B B^T)_kl / N^2 for standardised A and B, which is the same number from two
N x N Gram matrices; a Gram matrix serves every term its embedding takes part in. Where several
processes share a batch, C is built and summed over them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgessl.losses.precision import full_precision
from edgessl.losses.ranks import processes, sum_over_processes

EPS = 1e-5


def standardise(z_ND: Tensor, *, sync: bool = False) -> Tensor:
    """Centre every column and divide by its biased standard deviation (eps 1e-5 inside).

    This is BatchNorm without affine in training mode. Half precision is computed in float32.

    Args:
        z_ND: Embeddings.
        sync: Mean and deviation are those of all processes' rows.

    Raises:
        ValueError: Not a matrix, or fewer than two rows.
    """
    if z_ND.ndim != 2 or len(z_ND) < 2:
        raise ValueError(f"want embeddings (N >= 2, D), got {tuple(z_ND.shape)}")
    z_ND = z_ND if z_ND.dtype == torch.float64 else z_ND.float()
    if not sync:
        centred_ND = z_ND - z_ND.mean(0)
        return centred_ND * torch.rsqrt(centred_ND.square().mean(0) + EPS)
    rows = _all_rows(z_ND)
    centred_ND = z_ND - sum_over_processes(z_ND.sum(0)) / rows
    return centred_ND * torch.rsqrt(sum_over_processes(centred_ND.square().sum(0)) / rows + EPS)


def _all_rows(z_ND: Tensor) -> Tensor:
    return sum_over_processes(z_ND.new_tensor(float(len(z_ND))))


class Codes:
    """Standardised embeddings (N, D) of one pass, with their Gram matrix made once on demand.

    Args:
        z_ND: Embeddings of this process.
        sync: Where several processes share a batch: standardise and correlate over all of it.
    """

    def __init__(self, z_ND: Tensor, *, sync: bool = True) -> None:
        self.sync = sync and processes() > 1
        self.standard_ND = standardise(z_ND, sync=self.sync)
        self._gram_NN: Tensor | None = None

    @property
    def gram_NN(self) -> Tensor:
        """Inner products between the standardised rows of this process."""
        if self._gram_NN is None:
            with full_precision(self.standard_ND):
                self._gram_NN = self.standard_ND @ self.standard_ND.T
        return self._gram_NN

    def detach(self) -> Codes:
        """Return the same codes without gradient: the stop-gradient of the formulas."""
        codes = object.__new__(Codes)
        codes.sync, codes.standard_ND = self.sync, self.standard_ND.detach()
        codes._gram_NN = None if self._gram_NN is None else self._gram_NN.detach()
        return codes


def barlow_loss(a: Codes, b: Codes, *, lam: float, scale_loss: float) -> Tensor:
    """scale_loss * [sum_i (1 - C_ii)^2 + lam * sum_{i != j} C_ij^2], C = A^T B / N.

    Args:
        a: Codes of one pass.
        b: Codes of the other, same shape.
        lam: Weight of the off-diagonal entries.
        scale_loss: Factor on the whole loss.

    Returns:
        Scalar, float32 (float64 for float64 embeddings).

    Raises:
        ValueError: The shapes differ.
    """
    a_ND, b_ND = a.standard_ND, b.standard_ND
    if a_ND.shape != b_ND.shape:
        raise ValueError(f"embeddings differ in shape: {tuple(a_ND.shape)}, {tuple(b_ND.shape)}")
    n, d = a_ND.shape
    with full_precision(a_ND):
        if a.sync:
            c_DD = sum_over_processes(a_ND.T @ b_ND) / _all_rows(a_ND)
            diagonal_D, squares = c_DD.diagonal(), c_DD.square().sum()
        elif n < d:
            diagonal_D, squares = (a_ND * b_ND).mean(0), (a.gram_NN * b.gram_NN).sum() / (n * n)
        else:
            diagonal_D, squares = (a_ND * b_ND).mean(0), (a_ND.T @ b_ND / n).square().sum()
    off_diagonal = squares - diagonal_D.square().sum()
    return scale_loss * ((1 - diagonal_D).square().sum() + lam * off_diagonal)


def code_cross_entropy(live: Codes, target: Codes) -> Tensor:
    """-sum_d t_d log softmax(z)_d for standardised codes, the mean over the batch.

    Source: the other distillation loss that the supplement of SACL+XD tries. The target is the
    standardised code itself, which is no distribution: its entries sum to anything and may be
    negative.

    Args:
        live: Codes z that are trained.
        target: Codes t of the frozen pass; no gradient reaches them.

    Returns:
        Scalar, float32 (float64 for float64 embeddings).
    """
    found_ND = live.standard_ND.log_softmax(1)
    return -(target.standard_ND.detach() * found_ND).sum(1).mean()
