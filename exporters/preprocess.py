"""Preprocessing inside the graph: uint8 NHWC pixels in, what the net was trained on out.

Normalisation is one multiplication and one addition per channel. What the net gets differs from
:func:`edgessl.core.images.to_model_input` by less than 1e-6 of the largest value, as the same
formula is rounded in another order.

With ``Form.raw`` the graph takes whole pictures of one size, and resizes and crops them to the
same pixels as :func:`edgessl.data.decode.fit`, bit for bit: in PyTorch, ONNX Runtime, OpenVINO
held to float32, and LiteRT, as long as all that comes before the net stays in float32 when the
file is quantised (see :mod:`edgessl.exporters.pillow_resize`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgessl.core.artifact import InputSpec
from edgessl.core.errors import ConversionFailed
from edgessl.core.framing import framing
from edgessl.exporters.base import Form, plain_copy
from edgessl.exporters.pillow_resize import resizer, side

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

    check_resize(spec, form)

    class Embedded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = plain_copy(module)
            self.fit = torch.nn.Identity() if form.raw is None else _fit(spec, form.raw)
            low, high = spec.value_range
            mean, std = np.asarray(spec.mean, np.float64), np.asarray(spec.std, np.float64)
            for name, value in (
                ("scale", (high - low) / 255 / std),
                ("offset", (low - mean) / std),
            ):
                row = torch.from_numpy(value.astype(np.float32)).reshape(1, 3, 1, 1)
                self.register_buffer(name, row, persistent=False)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            # bytes are cheaper to move than floats, and planes to multiply than pixels: five
            # times faster in ONNX Runtime
            x = self.fit(pixels.permute(0, 3, 1, 2)).to(torch.float32)
            return self.net(x * self.scale + self.offset)

    return Embedded().eval()


def check_resize(spec: InputSpec, form: Form) -> None:
    """Refuse whole pictures that a graph cannot take.

    Raises:
        ConversionFailed: ``raw`` without ``embed``, no size, or pictures that would have to be
            enlarged.
    """
    if form.raw is None:
        return
    if not form.embed:
        raise ConversionFailed(
            "a file resizes pictures inside only when it normalises inside, too",
            hint="add --embed-preprocess",
        )
    height, width = form.raw
    if height < 1 or width < 1:
        raise ConversionFailed(f"no picture is {height} x {width} pixels")
    at = framing(form.raw, (spec.height, spec.width), spec.resize)
    if at.resized[0] > at.kept[0] or at.resized[1] > at.kept[1]:
        raise ConversionFailed(
            f"pictures of {height} x {width} pixels would have to be enlarged to "
            f"{at.resized[0]} x {at.resized[1]} inside the file",
            hint="give the size that the camera delivers, height first, or resize on the device",
        )


def example_input(spec: InputSpec, form: Form, batch: int = 1) -> torch.Tensor:
    """Return zeros as :func:`embedded` takes them with ``embed``, else as the plain net does."""
    import torch

    if not form.embed:
        return torch.zeros(batch, 3, spec.height, spec.width)
    height, width = form.raw or (spec.height, spec.width)
    return torch.zeros(batch, height, width, 3, dtype=torch.uint8)


def _fit(spec: InputSpec, raw: tuple[int, int]) -> torch.nn.Module:
    """Return the module from pictures (B, 3, *raw) to float32 of the size that the net takes."""
    import torch

    at = framing(raw, (spec.height, spec.width), spec.resize)
    rows = side(at.kept[0], at.resized[0], at.crop_top, spec.height)
    columns = side(at.kept[1], at.resized[1], at.crop_left, spec.width)
    top, bottom = at.top + rows.begin, at.top + rows.end
    left, right = at.left + columns.begin, at.left + columns.end

    class Fit(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.columns, self.rows = resizer(columns, rows=False), resizer(rows, rows=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x[:, :, top:bottom, left:right].to(torch.float32)
            return self.rows(self.columns(x))

    return Fit()
