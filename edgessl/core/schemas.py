"""JSON Schemas of the documents that no pydantic model describes, by kind; data only.

``schema``, ``kind`` and ``edgessl`` stand in front of every document and are not repeated here.
Required is what every such file has; readers ignore keys that they do not know.
"""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string"}
NUMBER = {"type": "number"}
COUNT = {"type": "integer", "minimum": 0}
FLAG = {"type": "boolean"}
SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
MOMENT = {"type": "string", "format": "date-time", "description": "UTC, ISO 8601"}


def _object(
    properties: dict[str, Any], optional: tuple[str, ...] = (), **more: str
) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, **more}


SCHEMAS: dict[str, dict[str, Any]] = {
    "run": _object(
        {
            "started": MOMENT,
            "commands": {
                "type": "array",
                "items": {"type": "array", "items": TEXT},
                "description": "command lines that worked in this folder, oldest first",
            },
            "stages": {
                "type": "object",
                "additionalProperties": _object(
                    {
                        "status": {"enum": ["done", "kept", "failed"]},
                        "seconds": NUMBER,
                        "finished": MOMENT,
                    }
                ),
            },
            "machine": {"type": "object", "description": "the computer of the last command"},
            "versions": {
                "type": "object",
                "additionalProperties": TEXT,
                "description": "edgessl and the packages that matter, where installed",
            },
            "source": {"type": "string", "description": "run folder that the input came from"},
            "finished": MOMENT,
        },
        optional=("machine", "versions", "source", "finished"),
        title="Run",
        description="run.json: what was run in a folder, when and on what",
    ),
    "stage": _object(
        {
            "identity": {
                "type": "object",
                "description": "all that the result depends on; another one: done again",
            },
            "seconds": NUMBER,
        },
        title="Stage",
        description="stage.json: this stage is finished",
    ),
    "training-state": _object(
        {
            "step": {"type": "integer", "minimum": 0, "description": "steps done"},
            "file": {"type": "string", "description": "tensors, beside this file"},
            "sha256": SHA256,
            "optimizer": {"type": "object", "description": "its values that are no tensors"},
            "facts": {"type": "object", "description": "what resuming compares and needs"},
        },
        title="TrainingState",
        description="last/state.json: where an interrupted training goes on",
    ),
    "splits": _object(
        {
            "data_sha256": SHA256,
            "seed": {"type": "integer"},
            "asked": {
                "type": "object",
                "additionalProperties": NUMBER,
                "description": "val and test as asked for: a share, or a number of images",
            },
            "duplicates": {**COUNT, "description": "images that are exact copies of another"},
            "splits": {
                "type": "object",
                "additionalProperties": _object(
                    {
                        "sha256": {"type": "array", "items": SHA256},
                        "items": {"type": "array", "items": TEXT},
                    }
                ),
                "description": "by name (train, val, test): images in the same order twice",
            },
            "skipped": {
                "type": "array",
                "items": _object({"item": TEXT, "reason": TEXT}),
                "description": "files that were left out",
            },
        },
        optional=("skipped",),
        title="Splits",
        description="splits.json: which labelled image is trained on, chooses, or is measured",
    ),
    "equivalence": _object(
        {
            "seal": {**SHA256, "description": "of the extracted net"},
            "source_seal": {**SHA256, "description": "of the host it was extracted from"},
            "width": TEXT,
            "images": COUNT,
            "data_sha256": SHA256,
            "max_abs_features": NUMBER,
            "max_abs_logits": NUMBER,
            "same_answers": FLAG,
            "tolerance": {"type": "number", "description": "allowed for both differences"},
            "pass": FLAG,
            "groups": {
                "type": "object",
                "additionalProperties": {
                    "type": "array", "items": COUNT, "minItems": 2, "maxItems": 2,
                },
                "description": "channel group to channels kept and channels of the host",
            },
        },
        title="Equivalence",
        description="equivalence.json: the extracted net against the slim pass on real images",
    ),
    "parity": _object(
        {
            "seal": {**SHA256, "description": "of the exported file"},
            "source_seal": {**SHA256, "description": "of the PyTorch net"},
            "where": TEXT,
            "images": _object({"split": TEXT, "n": COUNT, "data_sha256": SHA256}),
            "checks": {
                "type": "array",
                "items": _object(
                    {
                        "level": {"enum": ["golden", "tensors", "answers"]},
                        "n": COUNT,
                        "max_abs": {
                            "type": "number",
                            "description": "relative to the largest absolute reference logit",
                        },
                        "cosine": NUMBER,
                        "agreement": NUMBER,
                        "tolerance": NUMBER,
                        "pass": FLAG,
                    }
                ),
            },
            "snr_db": NUMBER,
            "differing": {
                "type": "array",
                "items": {"type": "array", "items": COUNT, "minItems": 2, "maxItems": 2},
                "description": "(image, logit) of the first values beyond the tolerance",
            },
            "bounds": {"type": "string", "description": "what the check does not say"},
        },
        title="Parity",
        description="parity.json: the exported file against the float32 PyTorch logits",
    ),
}  # fmt: skip
