"""JSON Schemas of the documents that no pydantic model describes, by kind; data only.

``schema``, ``kind`` and ``edgessl`` stand in front of every document and are not repeated here.
Required is what every such file has; readers ignore keys that they do not know.
"""

from __future__ import annotations

from typing import Any

from edgessl.core.schema_parts import (
    COUNT,
    COUNT_OR_NULL,
    FLAG,
    MOMENT,
    NUMBER,
    POSITIONS,
    SHA256,
    SIZE,
    TEXT,
    TEXT_OR_NULL,
    object_of,
)
from edgessl.core.schemas_bench import BENCH_SCHEMAS
from edgessl.core.schemas_boards import BOARD_SCHEMAS
from edgessl.core.schemas_export import EXPORT_SCHEMAS

SCHEMAS: dict[str, dict[str, Any]] = {
    "run": object_of(
        {
            "started": MOMENT,
            "commands": {
                "type": "array",
                "items": {"type": "array", "items": TEXT},
                "description": "command lines that worked in this folder, oldest first",
            },
            "stages": {
                "type": "object",
                "additionalProperties": object_of(
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
    "stage": object_of(
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
    "training-state": object_of(
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
    "splits": object_of(
        {
            "data_sha256": SHA256,
            "seed": {"type": "integer"},
            "asked": {
                "type": "object",
                "additionalProperties": NUMBER,
                "description": "val, test, folds, repeats as asked for: a share, or a number",
            },
            "group_by": {**TEXT_OR_NULL, "description": "how groups were told"},
            "duplicates": {**COUNT, "description": "images that are exact copies of another"},
            "splits": {
                "type": "object",
                "additionalProperties": object_of(
                    {
                        "sha256": {"type": "array", "items": SHA256},
                        "items": {"type": "array", "items": TEXT},
                    }
                ),
                "description": "by name (train, val, test; or all, with folds): images in the same "
                "order twice",
            },
            "folds": {
                "type": "array",
                "items": object_of(
                    {
                        "repeat": COUNT,
                        "fold": COUNT,
                        "train": POSITIONS,
                        "validation": POSITIONS,
                        "test": POSITIONS,
                    }
                ),
                "description": "positions among all images, where there is no test split",
            },
            "skipped": {
                "type": "array",
                "items": object_of({"item": TEXT, "reason": TEXT}),
                "description": "files that were left out",
            },
        },
        optional=("skipped", "group_by", "folds"),
        title="Splits",
        description="splits.json: which labelled image is trained on, chooses, or is measured",
    ),
    "data-findings": object_of(
        {
            "sources": {
                "type": "array",
                "items": object_of(
                    {
                        "role": {"type": "string", "description": "labels, unlabeled, test, ..."},
                        "name": TEXT,
                        "images": {**COUNT, "description": "that can be used"},
                        "classes": {
                            "type": ["object", "null"],
                            "additionalProperties": COUNT,
                            "description": "images by class; null without labels",
                        },
                        "sizes": object_of(
                            {"min": SIZE, "median": SIZE, "max": SIZE},
                            description="width and height in pixels, each on its own",
                        ),
                        "duplicates": COUNT,
                        "skipped": {
                            "type": "array",
                            "items": object_of({"item": TEXT, "reason": TEXT}),
                            "description": "the first files that cannot be used",
                        },
                        "skipped_count": COUNT,
                    }
                ),
            },
            "splits": {"type": ["object", "null"], "additionalProperties": COUNT},
            "folds": {**COUNT_OR_NULL, "description": "of one repeat; null with a test split"},
            "groups": {**COUNT_OR_NULL, "description": "kept together; null without group_by"},
            "near_duplicates": {
                "type": ["array", "null"],
                "items": object_of(
                    {
                        "a": TEXT,
                        "b": TEXT,
                        "a_split": TEXT,
                        "b_split": TEXT,
                        "distance": {
                            "type": "number",
                            "description": "root mean square difference of 32 x 32 thumbnails of "
                            "zero mean and unit contrast",
                        },
                    }
                ),
                "description": "closest pairs, those across splits first; null: not looked for",
            },
            "pretraining_overlap": {
                **COUNT,
                "description": "with folds: labelled images that the pretraining saw without their "
                "labels, copies counted each",
            },
        },
        optional=("pretraining_overlap",),
        title="DataFindings",
        description="data.json: what was found in the images",
    ),
    "image-cache": object_of(
        {
            "source": TEXT,
            "side": {**COUNT, "description": "short side that larger images were reduced to"},
            "pixels": {"type": "string", "description": "file beside this one: RGB, one image "
                "after another, row by row"},
            "class_names": {"type": ["array", "null"], "items": TEXT},
            "columns": {
                "type": "object",
                "additionalProperties": {"type": "array", "items": TEXT},
                "description": "further columns of a list, one text per image",
            },
            "images": object_of(
                {
                    "item": {"type": "array", "items": TEXT},
                    "label": {"type": ["array", "null"], "items": COUNT},
                    "shape": {"type": "array", "items": SIZE, "description": "height, width"},
                    "crc32": {"type": "array", "items": COUNT, "description": "of the pixels"},
                    "source_sha256": {"type": "array", "items": SHA256},
                    "source_size": {"type": "array", "items": SIZE, "description": "width, height"},
                },
                description="by property: one value per image, all in the same order",
            ),
            "skipped": {"type": "array", "items": object_of({"item": TEXT, "reason": TEXT})},
        },
        title="ImageCache",
        description="index.json beside pixels.bin: what edgessl data prepare wrote",
    ),
    "equivalence": object_of(
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
    "parity": object_of(
        {
            "seal": {**SHA256, "description": "of the exported file"},
            "source_seal": {**SHA256, "description": "of the PyTorch net"},
            "where": TEXT,
            "images": object_of({"split": TEXT, "n": COUNT, "data_sha256": SHA256}),
            "checks": {
                "type": "array",
                "items": object_of(
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
            "flips": {**POSITIONS, "description": "the first images with another answer"},
            "accuracy": {
                "type": "object", "description": "paired, on the labelled ones: n, float32, file, "
                "gained, lost",
            },
            "bounds": {"type": "string", "description": "what the check does not say"},
        },
        optional=("flips", "accuracy"),
        title="Parity",
        description="parity.json: the exported file against the float32 PyTorch logits",
    ),
} | EXPORT_SCHEMAS | BENCH_SCHEMAS | BOARD_SCHEMAS  # fmt: skip
