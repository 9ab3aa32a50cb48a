"""Sealed files that describe themselves: what to feed them, what comes out, where they came from.

The seal is the SHA-256 over the sorted ``name:sha256`` lines of the model files; records about
an artifact (parity, golden images, benches) name the seal they belong to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgessl.core import files
from edgessl.core.errors import FileInvalid

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# the document that describes an artifact, by the artifact's kind
DOCUMENTS = {"encoder": "encoder.json", "model": "model.json", "export": "artifact.json"}


class Document(BaseModel):
    """Base of the JSON documents: frozen; unknown keys are ignored on read."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Quantized(Document):
    """Integers that stand for real numbers: ``real = (integer - zero_point) * scale``."""

    scale: float = Field(gt=0)
    zero_point: int = 0


class InputSpec(Document):
    """How a decoded image becomes the input of a model.

    An RGB image is resized (``resize``: its short side, in pixels), centre-cropped to
    ``height`` x ``width``, scaled to ``value_range`` and normalised per channel with ``mean`` and
    ``std``; ``layout``, ``dtype`` and ``batch`` say how the file wants it.

    A file of dtype ``uint8`` or ``int8`` takes the normalised values rounded to integers as
    ``quantized`` says; without ``quantized`` it takes the pixels 0..255 as they are and
    normalises inside. With ``raw`` (height, width) it takes whole pictures of that size and
    resizes and crops inside, too.
    """

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    channels: Literal[3] = 3
    batch: int = Field(default=1, gt=0)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtype: Literal["float32", "uint8", "int8", "uint16", "int16"] = "float32"
    quantized: Quantized | None = None
    raw: tuple[int, int] | None = None
    value_range: tuple[float, float] = (0.0, 1.0)
    resize: int = Field(gt=0)
    interpolation: Literal["bilinear"] = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    colour_order: Literal["RGB"] = "RGB"

    @property
    def side(self) -> tuple[int, int]:
        """Height and width of the pictures that the file takes."""
        return self.raw or (self.height, self.width)

    @property
    def takes_pixels(self) -> bool:
        """Whether normalisation is inside the file, so that it takes pixels as they are."""
        return self.dtype == "uint8" and self.quantized is None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the input tensor in ``layout``."""
        height, width = self.side
        if self.layout == "NHWC":
            return (self.batch, height, width, self.channels)
        return (self.batch, self.channels, height, width)

    def with_layout(self, layout: Literal["NCHW", "NHWC"]) -> InputSpec:
        """Return the same contract in another layout."""
        return self.model_copy(update={"layout": layout})

    @classmethod
    def square(cls, imgsz: int) -> InputSpec:
        """Return the usual contract at ``imgsz`` pixels.

        Photographs are resized to 8/7 of the side and cropped (256 -> 224); at 64 px and below
        the whole image is kept, as small images are already framed.
        """
        resize = imgsz if imgsz <= 64 else round(imgsz * 8 / 7)
        return cls(height=imgsz, width=imgsz, resize=resize)


class OutputSpec(Document):
    """What a model gives: logits or features (1, C), real numbers or integers for them."""

    dtype: Literal["float32", "uint8", "int8", "uint16", "int16"] = "float32"
    quantized: Quantized | None = None


class Artifact(Document):
    """Model files with hashes, input contract, labels and parents.

    Attributes:
        artifact_kind: ``encoder`` (a pretraining checkpoint), ``model`` (a plain net) or
            ``export`` (a file for a runtime).
        format: ``safetensors``, ``onnx``, ``openvino`` or ``tflite``.
        files: Model file name to SHA-256; the first name is the one to open.
        seal: SHA-256 over the sorted ``name:sha256`` lines of ``files``.
        labels: Class names in the order of the logits; empty for an embedding model.
        parents: Seals of what this was made from.
        facts: What the kind adds (architecture, width, plan, tolerances); JSON values.
    """

    artifact_kind: Literal["encoder", "model", "export"]
    format: str
    files: dict[str, str] = Field(min_length=1)
    seal: str
    input: InputSpec
    output: OutputSpec = OutputSpec()
    labels: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    facts: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def sealed(  # noqa: PLR0913  (the fields of the document, all named at the call)
        cls,
        folder: Path,
        names: list[str],
        *,
        artifact_kind: Literal["encoder", "model", "export"],
        format: str,
        input: InputSpec,
        output: OutputSpec | None = None,
        labels: tuple[str, ...] = (),
        parents: tuple[str, ...] = (),
        facts: dict[str, Any] | None = None,
    ) -> Artifact:
        """Hash ``names`` in ``folder``, write the describing document beside them, return it."""
        hashes = {name: files.sha256_file(folder / name) for name in names}
        artifact = cls(
            artifact_kind=artifact_kind,
            format=format,
            files=hashes,
            seal=seal_of(hashes),
            input=input,
            output=output or OutputSpec(),
            labels=labels,
            parents=parents,
            facts=facts or {},
        )
        body = artifact.model_dump(mode="json")
        files.write_json(folder / DOCUMENTS[artifact_kind], artifact_kind, body)
        return artifact

    @classmethod
    def load(cls, folder: Path, *, verify: bool = True) -> Artifact:
        """Read the artifact in ``folder`` and check its files against their hashes.

        Raises:
            FileInvalid: No artifact there, a file is missing or altered, or the document is
                malformed or names files outside its folder.
        """
        found = [(k, folder / d) for k, d in DOCUMENTS.items() if (folder / d).is_file()]
        if not found:
            raise FileInvalid(
                f"{folder} holds no artifact (none of {', '.join(DOCUMENTS.values())})",
                hint="give the folder of a stage, for example runs/<name>/export/1x-onnx-none",
            )
        kind, path = found[0]
        try:
            artifact = cls.model_validate(files.read_json(path, kind))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise FileInvalid(f"{path}: {place}: {first['msg']}") from error
        for name in artifact.files:
            if Path(name).name != name:
                raise FileInvalid(f"{path} names a file outside its folder: {name!r}")
        if verify:
            artifact.verify(folder)
        return artifact

    def verify(self, folder: Path) -> None:
        """Check that the files in ``folder`` are the ones that were sealed.

        Raises:
            FileInvalid: A file is missing or its hash differs.
        """
        for name, expected in self.files.items():
            if not (folder / name).is_file():
                raise FileInvalid(f"{folder / name} is missing")
            if (seen := files.sha256_file(folder / name)) != expected:
                raise FileInvalid(
                    f"{folder / name} was changed or cut: sha256 {seen[:12]}, sealed as "
                    f"{expected[:12]}",
                    hint="run the stage that wrote it again",
                )
        if seal_of(self.files) != self.seal:
            raise FileInvalid(f"the seal in {folder} does not fit its file hashes")

    @property
    def main_file(self) -> str:
        """Name of the file that a runtime opens."""
        return next(iter(self.files))


def seal_of(hashes: dict[str, str]) -> str:
    """Return the SHA-256 over the sorted ``name:sha256`` lines."""
    return files.sha256_bytes("".join(f"{k}:{hashes[k]}\n" for k in sorted(hashes)).encode())
