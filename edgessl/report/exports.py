"""The exported files as they are shown: what each is proven to do, in figures and plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgessl.report.formats import (
    MISSING,
    count,
    percent,
    plural,
    points,
    points_range,
    size,
)
from edgessl.report.found import FoundArtifact
from edgessl.report.proofs import Proof
from edgessl.report.read import Run
from edgessl.report.records import Candidate, Gate
from edgessl.report.sensitivity import LayerView, layer_view
from edgessl.report.tolerant import width_number
from edgessl.report.tried import CandidateView, candidate_view, images_words, selection_words, times
from edgessl.report.variants import NAMES

SAME_SPEED = 1.05  # two medians that differ by less cannot be told apart
JUDGED = {
    "PASS": "It gives float32's answers, within the bounds.",
    "FAIL": "It does not give float32's answers, so it must not ship.",
    "INCONCLUSIVE": "These images cannot decide whether it gives float32's answers.",
    "NOT PROVEN": "Nothing is known about its answers",
}


@dataclass(frozen=True, slots=True)
class ExportView:
    """One exported file, written out; ``lines`` are the facts behind its outcome."""

    proof: Proof
    title: str
    precision: str
    size: str
    beside: str
    agreement: str
    agreement_about: str
    drop: str
    drop_range: str
    shift: str
    shift_range: str
    speed: str
    sentence: str
    lines: list[str]
    to_do: str
    slower: bool = False
    candidates: list[CandidateView] = field(default_factory=list)
    tried: str = ""
    layers: LayerView | None = None

    @property
    def name(self) -> str:
        """The target and the width, without the precision."""
        target = NAMES.get(self.proof.target, self.proof.target)
        return ", ".join(word for word in (target, self.proof.width) if word)

    @property
    def outcome(self) -> str:
        """PASS, FAIL, INCONCLUSIVE or NOT PROVEN."""
        return self.proof.outcome

    @property
    def reasons(self) -> list[str]:
        """Why, as the gate says it."""
        return list(self.proof.gate.reasons) if self.proof.gate else []

    @property
    def quantised(self) -> bool:
        """Whether it is more than a float32 file that its parity speaks for."""
        return self.proof.quantised


def file_title(proof: Proof) -> str:
    """Name a file for people: ``ONNX int8, 1x``."""
    name = NAMES.get(proof.target, proof.target) or "file"
    precision = f" {proof.precision}" if proof.precision else ""
    return f"{name}{precision}" + (f", {proof.width}" if proof.width else "")


def export_views(run: Run) -> list[ExportView]:
    """Write out every exported file: the widest net first, float32 before what was made of it."""

    def place(proof: Proof) -> tuple[float, str, bool, str]:
        return -width_number(proof.width), proof.target, proof.quantised, proof.asked

    return [_view(proof, _sibling(proof, run)) for proof in sorted(run.proofs, key=place)]


def _sibling(proof: Proof, run: Run) -> Proof | None:
    """Return the float32 file that a quantised one was made of."""
    same = (proof.width, proof.target)
    floats = [p for p in run.proofs if not p.quantised and (p.width, p.target) == same]
    return floats[0] if floats and proof.quantised else None


def _view(proof: Proof, sibling: Proof | None) -> ExportView:
    gate, search = proof.gate, proof.search
    choice = search.choice if search else None
    speed, slower = _speed(proof.chosen, choice)
    agreement, about = _agreement(proof)
    return ExportView(
        proof=proof,
        title=file_title(proof),
        precision=_precision(proof),
        size=size(proof.bytes) if proof.artifact else "no file",
        beside=_beside(proof, sibling),
        agreement=agreement,
        agreement_about=about,
        drop=_drop(gate),
        drop_range=points_range(gate.drop_low, gate.drop_high) if gate and _told(gate) else "",
        shift=points(gate.shift) if gate else MISSING,
        shift_range=points_range(gate.shift_low, gate.shift_high) if gate else "",
        speed=speed,
        slower=slower,
        sentence=_sentence(proof),
        lines=_lines(gate) if gate else [],
        to_do=_to_do(proof, gate) if gate else "",
        candidates=[candidate_view(c, search) for c in search.candidates] if search else [],
        tried=selection_words(search) if search else "",
        layers=layer_view(proof.sensitivity, file_title(proof)) if proof.sensitivity else None,
    )


def _precision(proof: Proof) -> str:
    if not proof.quantised:
        return "float32"
    text = proof.asked
    if proof.chosen != proof.asked:
        text += f", as {proof.chosen} (fallback)"
    elif proof.fell_back:
        text += " (fallback)"
    return text


def _beside(proof: Proof, sibling: Proof | None) -> str:
    if sibling is None or not sibling.bytes or not proof.bytes:
        return ""
    return f"{100 * proof.bytes / sibling.bytes:.0f}% of float32"


def _agreement(proof: Proof) -> tuple[str, str]:
    if proof.gate is not None:
        return percent(proof.gate.agreement), f"{count(proof.gate.n)} images"
    if (check := proof.parity) is None:
        return MISSING, ""
    return percent(check.agreement), f"{count(check.n)} images"


def _told(gate: Gate) -> bool:
    """Whether the drop itself is known, not only its upper bound."""
    return gate.drop is not None and gate.drop_low is not None


def _drop(gate: Gate | None) -> str:
    if gate is None:
        return MISSING
    return points(gate.drop) if _told(gate) else f"at most {_points(gate.drop_high)}"


def _speed(precision: str, choice: Candidate | None) -> tuple[str, bool]:
    """Compare with the float32 file in words, and say whether it is slower."""
    if choice is None or choice.ratio is None:
        return "", False
    ratio = choice.ratio
    if ratio >= SAME_SPEED:
        return f"{precision} is slower here ({times(ratio)})", True
    if ratio <= 1 / SAME_SPEED:
        return f"{precision} is faster here ({times(1 / ratio)})", False
    return f"{precision} is as fast as float32 here", False


def _sentence(proof: Proof) -> str:
    if proof.artifact is None:
        return f"No {proof.asked} file was written: {proof.why}."
    if proof.outcome == "NOT PROVEN":
        return f"{JUDGED['NOT PROVEN']}: {proof.why}."
    if proof.why:
        return f"{JUDGED[proof.outcome].rstrip('.')}: {proof.why}."
    return JUDGED[proof.outcome]


def _lines(gate: Gate) -> list[str]:
    """Say what the gate saw: flips, drop, shift, and which images bound them."""
    allowed, sure = gate.bounds.max_drop, gate.bounds.confidence
    at = f" ({100 * sure:g}% bound)" if sure else ""
    share = f" ({percent(gate.flips / gate.n)})" if gate.n else ""
    flips = f"{plural(gate.flips, 'answer')} of {count(gate.n)} flipped{share}."
    if known := gate.flips - gate.unlabelled_flips:
        flips += (
            f" Of the {count(known)} whose label is known, {count(gate.lost)} became wrong and "
            f"{count(gate.gained)} right."
        )
    limit = f"; {_points(allowed)} may be lost" if allowed is not None else ""
    found = [flips, f"{_fall(gate)}{at}{limit}."]
    if not _told(gate):
        found.append("With labels missing, every flip without one counts as a loss.")
    if gate.shift is not None:
        way = "less" if gate.shift >= 0 else "more"
        limit = gate.bounds.max_shift
        found.append(
            f"Its answers are {_points(abs(gate.shift))} points {way} confident on average"
            + (f"; {_points(limit)} are allowed." if limit is not None else ".")
        )
    if gate.images:
        found.append(
            f"Bounded by {images_words(gate.images)}; nothing is said of images unlike them."
        )
    if gate.trained_on:
        found.append(
            "The net was trained on these images: on new ones more answers may flip than here."
        )
    return found


def _fall(gate: Gate) -> str:
    """Say how far top-1 falls, with the bound that decides."""
    most = f"at most {_points(gate.drop_high)}"
    if gate.drop is None or gate.drop_low is None:
        return f"Top-1 falls by {most} points"
    if gate.outcome == "FAIL" and gate.drop_low > 0:
        most = f"at least {_points(gate.drop_low)}"
    if gate.drop == 0:
        return f"Top-1 stays the same, and falls by {most} points"
    way = "falls" if gate.drop > 0 else "rises"
    again = "by" if gate.drop > 0 else "and falls by"
    return f"Top-1 {way} by {_points(abs(gate.drop))} points, {again} {most}"


def _points(share: float) -> str:
    return points(share).lstrip("+")


def _to_do(proof: Proof, gate: Gate) -> str:
    """Say what decides an open case: labels for the flips, or more images."""
    if gate.outcome != "INCONCLUSIVE":
        return ""
    parts = []
    if gate.to_label:
        pictures = plural(gate.to_label, "picture")
        parts.append(
            f"To decide, label {pictures}: look at {proof.folder}/flips, fill in the column label "
            "of flips.csv there, and run the same command with --resume."
        )
    if gate.needed:
        other = "Or without" if parts else "Without"
        parts.append(
            f"{other} labels it would take about {plural(gate.needed, 'image')} in all; there "
            f"are {count(gate.n)}."
        )
    return " ".join(parts)


def shipped_words(proof: Proof) -> str:
    """Say how the file that the figures of a run are of was judged."""
    name = file_title(proof)
    if proof.outcome == "INCONCLUSIVE":
        return f"It is {name}: whether it may ship could not be decided (INCONCLUSIVE)."
    if proof.outcome == "PASS":
        return f"It is {name}, and gives float32's answers within the bounds (PASS)."
    why = f": {proof.why}" if proof.why else ""
    return f"It is {name}, and must not ship as it is ({proof.outcome}{why})."


def proof_remarks(exports: Sequence[ExportView], shipped: FoundArtifact | None) -> list[str]:
    """Return a sentence for every file that is not proven, and for a shipped one that is slow."""
    found = []
    for view in exports:
        own = shipped is not None and view.proof.seal == shipped.artifact.seal
        if not view.proof.passed:
            text = f"{view.title}: {view.outcome}. {view.sentence}"
            if view.reasons and not view.to_do:
                text = f"{text.rstrip('.')}: {'; '.join(view.reasons)}."
            found.append(f"{text} {view.to_do}".strip())
        elif own and view.slower:
            found.append(f"{view.title}: {view.speed}.")
    return found
