"""The making of one quantised file: candidates tried, one kept, proven, sealed and judged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from math import inf
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.errors import GateFailed
from edgessl.core.images import to_model_input
from edgessl.encoders.loading import write_tensors
from edgessl.exporters import EXPORTERS, PRECISIONS, RUN_HERE, offered_by
from edgessl.exporters.base import Quantization, Scheme, Written
from edgessl.exporters.parity import Parity, compare
from edgessl.quantization.aware import AwareImages, AwarePlan, fine_tuned
from edgessl.quantization.figures import NOISE, Figures, measure
from edgessl.quantization.search import Candidate, Ladder, Outcome, Try, search
from edgessl.quantization.sensitivity import (
    LayerSensitivity,
    alone,
    record,
    to_keep_in_float,
)
from edgessl.stages import export_records as records
from edgessl.stages import judging
from edgessl.stages.context import Context
from edgessl.stages.export import (
    Exported,
    Source,
    document,
    form_of,
    raise_mismatch,
    ready,
    seal,
    total_bytes,
)
from edgessl.stages.export_records import Outputs
from edgessl.stages.proving import Material
from edgessl.stages.workshop import Workshop

# what a file may differ from PyTorch in one logit, relative to the largest: beyond that it is
# garbage, whatever its answers are
TENSOR_TOLERANCE = {"fp16": 5e-2, "int8": 1.0, "w8a16": 1.0, "dynamic": 1.0}
FP16_AGREEMENT = 0.99
# golden logits travel to other processors, whose integer kernels round differently
GOLDEN_MARGIN, GOLDEN_LEAST = 1.5, 5e-2
MOST_UNLABELLED = 4000  # unlabeled proof images beyond these add little
ANALYZED, RACED = 64, 32
AWARE_STEPS, AWARE_SELECTION = 100, 512


class QuantizedFile:
    """One quantised export in the making."""

    def __init__(
        self, context: Context, source: Source, target: str, exported: Exported, material: Material
    ) -> None:
        self.context, self.source, self.target = context, source, target
        self.float, self.material = exported, material
        self.section = context.recipe.export
        # "none" does not come here
        self.precision: Quantization = cast("Quantization", self.section.quantize)
        self.chosen_on = source.reference(material.selection.images)
        self.made: dict[str, tuple[Path, Written]] = {}
        self.float_ms: list[float] = []

    def make(self, folder: Path, base: dict[str, Any], known: dict[str, int]) -> None:
        """Search, write the chosen file and its records, and judge it.

        Raises:
            GateFailed: No candidate could be made, or the file gives garbage.
        """
        log = folder / "converter.log"
        with Workshop(self.target, self.section, log) as shop:
            shop.versions |= self.float.artifact.facts["versions"]
            outcome = self._search(shop)
            if outcome.chosen is None:
                self._record(folder, outcome, "")
                causes = "; ".join(str(t.error) for t in outcome.tries if t.error)[:300]
                raise GateFailed(
                    f"{self.target}: no {self.precision} file is worth having: "
                    f"{causes or 'all are slower and no smaller than float32'}",
                    hint=f"use float32; what was tried is in {folder / 'search.json'}",
                )
            place, written = self.made[outcome.chosen.name]
            for name in written.files:
                shutil.move(str(place / name), folder / name)
            ready(shop, self.source, folder, written)
            shown = self._shown(shop, folder, written)
            tested = self._tested(shop, folder, written, shown)
            artifact, parity = self._document(shop, folder, written, outcome.chosen, tested)
            self._record(folder, outcome, artifact.seal)
            if self.section.analyze:
                self._analyze(shop, folder, written, artifact)
        if not parity.passed or (
            self.precision == "fp16" and parity.agreement < FP16_AGREEMENT and artifact.labels
        ):
            raise_mismatch(folder, self.target, tested, parity)
        origin = {"sources": list(self.material.sources), "trained_on": self.material.trained_on}
        if self.precision != "fp16" and artifact.labels:
            judging.write_verdict(self.context, folder, artifact, shown, known, origin)
        judging.keep_answers(folder, shown, base, origin)
        self._warn_if_slower(outcome)
        log.unlink(missing_ok=True)

    def _warn_if_slower(self, outcome: Outcome) -> None:
        figures = next(t.figures for t in outcome.tries if t.candidate == outcome.chosen)
        if figures is not None and figures.ratio is not None and figures.ratio > NOISE:
            precision = outcome.chosen.scheme.precision if outcome.chosen else self.precision
            self.context.reporter.warn(
                f"{self.target} {precision} is slower here: {figures.ratio:.1f}x the time of "
                "float32 on this processor; bench both where they will run"
            )

    def _search(self, shop: Workshop) -> Outcome:
        integers = self.section.io == "integer"
        offered = [name for name in PRECISIONS if name in offered_by(self.target)[1:]]
        if integers:
            offered = [name for name in offered if name in ("int8", "w8a16")]
        ladder = Ladder(
            asked=Scheme(self.precision, integer_io=integers),
            offered=cast("list[Quantization]", offered),
            sensitive=self._sensitive,
            calibration_images=self.section.calibration_images,
            images=len(self.material.calibration),
        )
        several = self.precision == "int8" and self.section.fallback and self.source.artifact.labels
        return search(
            lambda tries: islice(ladder.candidates(tries), None if several else 1),
            lambda candidate: self._try(shop, candidate),
            bounds=judging.bounds_of(self.section),
            float_bytes=total_bytes(self.float.folder, self.float.written.files),
            proof=int((self.material.proof.labels >= 0).sum()),
            said=self._say,
        )

    def _try(self, shop: Workshop, candidate: Candidate) -> Figures:
        """Write and run one candidate on the selection split."""
        name = f"{self.source.width} {self.target} {candidate.name}"
        self.context.reporter.say(f"export: {name} ...")
        base, written = self.float.folder, self.float.written
        if candidate.aware:
            base, written = self._aware(shop, candidate)
        place, selection = shop.place(f"try-{len(self.made)}"), self.material.selection.images
        calibrating = self.material.calibration[: max(1, candidate.calibration_images)]
        made = shop.quantize(base, written, place, candidate.scheme, calibrating)
        got = shop.predict(place, made, selection)
        self.made[candidate.name] = (place, made)
        ms = ratio = None
        if EXPORTERS[self.target].facts[candidate.scheme.precision] == RUN_HERE:
            pair = [(self.float.folder, self.float.written), (place, made)]
            float_ms, ms = shop.race(pair, selection[:RACED])
            self.float_ms.append(float_ms)
            ratio = ms / float_ms
        return Figures(
            measure(self.chosen_on, got, self.material.selection.labels),
            total_bytes(place, made.files),
            ms,
            ratio,
        )

    def _say(self, one: Try) -> None:
        name = f"{self.source.width} {self.target} {one.candidate.name}"
        if one.figures is None:
            self.context.reporter.warn(f"export: {name}: {one.error}")
            return
        seen, ratio = one.figures.deviation, one.figures.ratio
        speed = "" if ratio is None else f", {ratio:.2f}x the time of float32 here"
        self.context.reporter.say(
            f"export: {name}: {100 * seen.agreement:.1f} % of {seen.n} answers kept, "
            f"{one.figures.bytes / 1e6:.2f} MB{speed}"
        )

    def _aware(self, shop: Workshop, candidate: Candidate) -> tuple[Path, Written]:
        """Return the float file of the net after quantisation-aware fine-tuning."""
        notes, artifact, calibration = self.source.notes, self.source.artifact, self._calibrating()
        if "aware" not in notes:
            images = AwareImages(
                training=self.source.fitted(self.material.training),
                calibration=calibration,
                selection=self.source.fitted(self.material.selection.images[:AWARE_SELECTION]),
                spec=artifact.input,
            )
            # bounded by steps, not by seconds: the same net gives the same file every time
            plan = AwarePlan(
                steps=AWARE_STEPS, max_seconds=inf, checks=5,
                seed=self.context.recipe.seed, calibration=candidate.scheme.calibration,
            )  # fmt: skip
            notes["aware"] = fine_tuned(
                self.source.network, images, plan, reporter=self.context.reporter
            )
        model, out = shop.place("aware-net"), shop.place("aware-float")
        write_tensors(model / "model.safetensors", notes["aware"][0].state_dict())
        Artifact.sealed(
            model, ["model.safetensors"], artifact_kind="model", format="safetensors",
            input=artifact.input, labels=artifact.labels, parents=(artifact.seal,),
            facts=artifact.facts,
        )  # fmt: skip
        return out, shop.convert(model, out, form_of(self.context))[0]

    def _calibrating(self) -> NDArray[np.uint8]:
        return self.source.fitted(self.material.calibration[: self.section.calibration_images])

    def _sensitive(self) -> Sequence[Sequence[str]]:
        """Return the layers, the most sensitive first, each with those that feed it."""
        return to_keep_in_float(self._alone(), self.source.network)

    def _alone(self) -> list[LayerSensitivity]:
        """Return what each layer costs when it alone is quantised; measured once for a net."""
        notes = self.source.notes
        if "alone" not in notes:
            self.context.reporter.say("export: measuring layers one by one ...")
            spec = self.source.artifact.input.with_layout("NCHW")
            images, calibration = (
                torch.from_numpy(to_model_input(self.source.fitted(x[:ANALYZED]), spec))
                for x in (self.material.selection.images, self.material.calibration)
            )
            notes["alone"] = alone(
                self.source.network, images.split(16), calibration.split(16),
                reporter=self.context.reporter,
            )  # fmt: skip
        return notes["alone"]

    def _shown(self, shop: Workshop, folder: Path, written: Written) -> Outputs:
        """Return the answers on the proof images."""
        proof = self.material.proof
        most = int((proof.labels >= 0).sum()) + MOST_UNLABELLED
        proof = judging.first(proof, most)
        got = shop.predict(folder, written, proof.images)
        return Outputs(proof, self.source.reference(proof.images), got)

    def _tested(self, shop: Workshop, folder: Path, written: Written, shown: Outputs) -> Outputs:
        """Return the answers on the images that the float32 file was compared on."""
        tested = self.context.pictures.proof
        n = len(tested.labels)
        if shown.images.sha256[:n] == tested.sha256:
            return Outputs(tested, shown.reference[:n], shown.got[:n])
        got = shop.predict(folder, written, tested.images)
        return Outputs(tested, self.source.reference(tested.images), got)

    def _document(
        self, shop: Workshop, folder: Path, written: Written, chosen: Candidate, tested: Outputs
    ) -> tuple[Artifact, Parity]:
        parity = compare(tested.reference, tested.got, TENSOR_TOLERANCE[self.precision])
        rows = records.golden_rows(tested.images)
        golden = compare(tested.reference[rows], tested.got[rows]).max_abs
        facts = {
            "quantize": self.precision,
            "scheme": json.loads(json.dumps(asdict(chosen.scheme))),
            "chosen": chosen.name,
            "aware": chosen.aware,
            "calibration_images": chosen.calibration_images,
            "float_seal": self.float.artifact.seal,
            "tolerance": max(GOLDEN_LEAST, GOLDEN_MARGIN * min(golden, 1.0)),
        }
        made = (written, self.float.artifact.format)
        artifact = seal(self.context, self.source, shop, folder, made, facts)
        note = f"{chosen.name}; {100 * parity.agreement:.2f} % of {parity.n} answers kept"
        document(self.context, self.source, folder, artifact, written, tested, parity, note)
        return artifact, parity

    def _record(self, folder: Path, outcome: Outcome, seal: str) -> None:
        selection = self.material.selection
        labelled = int((selection.labels >= 0).sum())
        about = {"n": len(selection.labels), "labelled": labelled}
        float_ms = median(self.float_ms) if self.float_ms else None
        body = outcome.record(seal=seal, selection=about, float_ms=float_ms)
        files.write_json(folder / "search.json", "quantization-search", body)

    def _analyze(self, shop: Workshop, folder: Path, written: Written, artifact: Artifact) -> None:
        """Write ``sensitivity.json``: each layer alone, and inside the file."""
        rows = self._alone()
        pair = [(self.float.folder, self.float.written), (folder, written)]
        images = self.material.selection.images[:ANALYZED]
        body = record(rows, shop.layer_errors(pair, images), seal=artifact.seal, images=len(images))
        files.write_json(folder / "sensitivity.json", "sensitivity", body)
        worst = ", ".join(
            f"{r.module} ({r.alone_snr_db:.1f} dB)"
            for r in sorted(rows, key=lambda r: r.alone_snr_db)[:3]
        )
        self.context.reporter.say(f"export: most sensitive layers: {worst}")
