"""What quantisation does to each layer: bars in the order of execution, the worst by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from edgessl.report.formats import MISSING, percent, significant, tiny
from edgessl.report.records import LayerError, Sensitivity
from edgessl.report.svg import Axis, figure, horizontal_grid, pc, tag, upright_line, words_at

WORST = 5  # so many layers are named in a picture
LANE = 16  # pixels from one name to the next
HEIGHT = 130
LONGEST = 30  # characters of a name in the picture


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer, written out."""

    number: int
    module: str
    op: str
    alone: str
    snr: str
    kl: str
    agreement: str
    inside: str
    worst: bool


@dataclass(frozen=True, slots=True)
class LayerView:
    """The layers of one file, as pictures and as a table; ``worst`` names them in words."""

    pictures: list[tuple[str, Markup, str]]
    rows: list[LayerRow]
    worst: str


def relative_error(snr_db: float) -> float:
    """Return the RMS of the error over the RMS of the signal, from their ratio in dB."""
    return 10 ** (-snr_db / 20)


def layer_view(sensitivity: Sensitivity, title: str) -> LayerView | None:
    """Write out the layers of a file; None where there are none."""
    layers = sensitivity.layers
    if not layers:
        return None
    alone = [_error(layer.alone_snr_db) for layer in layers]
    inside = [_error(layer.file_snr_db) for layer in layers]
    worst = _worst(alone)
    pictures = []
    if worst:
        picture = bars(f"Error of the logits by layer, {title}", layers, alone)
        about = (
            "When this layer alone is quantised, in percent of the logits (RMS), simulated in "
            "PyTorch. Long bars are the layers to keep in float."
        )
        pictures.append(("Each layer alone: error of the logits, %", picture, about))
    if _worst(inside):
        picture = bars(f"Error of each layer's output inside the file, {title}", layers, inside)
        about = (
            "In percent of the same output in float32 (RMS). It carries along what came before; "
            "layers whose output the file does not keep have no bar."
        )
        pictures.append(("Inside the file: error of each output, %", picture, about))
    named = ", ".join(f"{layers[i].module} ({_percent(alone[i])})" for i in worst)
    return LayerView(
        pictures=pictures,
        rows=[_row(i, layer, alone[i], i in worst) for i, layer in enumerate(layers)],
        worst=named,
    )


def bars(title: str, layers: Sequence[LayerError], errors: Sequence[float | None]) -> Markup:
    """Draw one bar per layer from left to right; the longest are coloured and named."""
    known = [100 * error for error in errors if error is not None]
    axis = Axis.around([0.0, *known], wanted=3, floor=0.0)
    worst = _worst(errors)
    left = sorted(i for i in worst if _middle(i, layers) <= 50)
    right = sorted((i for i in worst if i not in left), reverse=True)
    top = LANE * len(worst) + 14
    parts = horizontal_grid(axis, top, HEIGHT)
    texts = []
    width = 100 / len(layers)
    for index, (layer, error) in enumerate(zip(layers, errors, strict=True)):
        if error is None:
            continue
        height = HEIGHT * axis.at(100 * error) / 100
        parts.append(
            tag(
                "rect",
                tag("title", escape(f"{index + 1} {layer.module}: {_percent(error)}")),
                x=pc(width * index + 0.1 * width),
                y=round(top + HEIGHT - height, 1),
                width=pc(0.8 * width),
                height=round(max(height, 1), 1),
                class_="layer worst" if index in worst else "layer",
            )
        )
    for lane, index in enumerate([*left, *right]):
        x, y = _middle(index, layers), 14 + LANE * lane
        error = errors[index] or 0.0
        end = top + HEIGHT * (1 - axis.at(100 * error) / 100)
        parts.append(upright_line(x, y + 4, end, "joint"))
        name = f"{_short(layers[index].module)} {_percent(error)}"
        texts.append(words_at(x, y, name, "label", "start" if index in left else "end"))
    bottom = top + HEIGHT + 16
    texts.append(words_at(0, bottom, "first layer", "tick"))
    texts.append(words_at(100, bottom, f"last of {len(layers)}", "tick", "end"))
    text = "; ".join(f"{layers[i].module}: {_percent(errors[i])}" for i in worst)
    return figure(title, f"{title}. The worst: {text}", bottom + 8, parts + texts, gutter=True)


def _middle(index: int, layers: Sequence[LayerError]) -> float:
    return 100 * (index + 0.5) / len(layers)


def _short(module: str) -> str:
    return module if len(module) <= LONGEST else "…" + module[1 - LONGEST :]


def _error(snr_db: float | None) -> float | None:
    return None if snr_db is None else relative_error(max(-60.0, snr_db))


def _worst(errors: Sequence[float | None]) -> list[int]:
    """Return the places of the largest errors, the largest first."""
    known = [i for i, error in enumerate(errors) if error is not None]
    return sorted(known, key=lambda i: (-(errors[i] or 0.0), i))[:WORST]


def _percent(error: float | None) -> str:
    return MISSING if error is None else f"{significant(100 * error, 2)}%"


def _row(index: int, layer: LayerError, alone: float | None, worst: bool) -> LayerRow:
    return LayerRow(
        number=index + 1,
        module=layer.module,
        op=layer.op,
        alone=_percent(alone),
        snr=MISSING if layer.alone_snr_db is None else f"{layer.alone_snr_db:.1f}",
        kl=MISSING if layer.alone_kl is None else tiny(layer.alone_kl),
        agreement=percent(layer.alone_agreement),
        inside=MISSING if layer.file_snr_db is None else f"{layer.file_snr_db:.1f}",
        worst=worst,
    )
