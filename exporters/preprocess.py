"""Preprocessing inside the graph: uint8 NHWC pixels in, what the net was trained on out.

Normalisation is one multiplication and one addition per channel. What the net gets differs from
:func:`edgessl.core.images.to_model_input` by less than 1e-6 of the largest value, as the same
formula is rounded in another order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgessl.core.artifact import InputSpec
from edgessl.core.errors import ConversionFailed
from edgessl.exporters.base import Form, plain_copy

if TYPE_CHECKING:
    import torch

# the plain net is this submodule of the embedded one: its modules are named "net.<name>"
NET = "net"


def embedded_spec(spec: InputSpec, form: Form) -> InputSpec:
    """Return the contract of a file that normalises inside: pixels in, uint8 NHWC."""
    update = {"dtype": "uint8", "layout": "NHWC", "quantized": None, "raw": form.raw}
    return spec.model_copy(update=update)


def embedded(module: torch.nn.Module, spec: InputSpec, form: Form) -> torch.nn.Module:
    """Return a net that takes pixels.

    Args:
        module: Net from (B, 3, height, width) float32 to (B, C); it is left as it was.
        spec: Contract of the net: its range, mean and std.
        form: ``raw`` is the size of the pictures.

    Returns:
        Net from uint8 (B, H, W, 3) in 0..255 to (B, C), on the CPU, in evaluation mode. The
        plain net is its submodule :data:`NET`.

    Raises:
        ConversionFailed: The graph cannot have that form.
    """
    import torch

    if form.raw is not None:
        raise ConversionFailed("pictures are not resized inside the graph", hint="leave raw out")

    class Embedded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = plain_copy(module)
            low, high = spec.value_range
            mean, std = np.asarray(spec.mean, np.float64), np.asarray(spec.std, np.float64)
            for name, value in (
                ("scale", (high - low) / 255 / std),
                ("offset", (low - mean) / std),
            ):
                row = torch.from_numpy(value.astype(np.float32)).reshape(1, 3, 1, 1)
                self.register_buffer(name, row, persistent=False)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            # bytes are cheaper to transpose, and planes to multiply: five times faster in
            # ONNX Runtime than normalising pixel by pixel
            x = pixels.permute(0, 3, 1, 2).to(torch.float32)
            return self.net(x * self.scale + self.offset)

    return Embedded().eval()


def example_input(spec: InputSpec, form: Form, batch: int = 1) -> torch.Tensor:
    """Return zeros as :func:`embedded` takes them with ``embed``, else as the plain net does."""
    import torch

    if not form.embed:
        return torch.zeros(batch, 3, spec.height, spec.width)
    height, width = form.raw or (spec.height, spec.width)
    return torch.zeros(batch, height, width, 3, dtype=torch.uint8)
