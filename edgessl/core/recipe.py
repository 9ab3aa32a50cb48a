"""The recipe: one validated, frozen tree of values, a section per stage.

Unknown keys are errors; ``edgessl.core.recipe_problems`` tells all errors at once. Names of
methods, encoders and targets are checked against their tables where recipes are loaded
(``edgessl.stages.recipes``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)  # fmt: skip

from edgessl.core.widths import parse_width, width_label, width_text


def _slim_text(text: str) -> str:
    if len(set(parse_width(text))) != 1:
        raise ValueError(f"{text!r} names several widths; write one, for example 1x")
    return width_text(text)


WidthText = Annotated[str, AfterValidator(width_text)]
SlimText = Annotated[str, AfterValidator(_slim_text)]
Share = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Split = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(gt=0)]


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if not 0 < bounds[0] <= bounds[1] <= 1:
        raise ValueError(f"want 0 < low <= high <= 1, got {list(bounds)}")
    return bounds


CropScale = Annotated[tuple[float, float], AfterValidator(_ordered)]


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(Section):
    """Where images come from and how they are split."""

    labels: str | None = Field(
        default=None,
        description="labelled images: folder of class folders, .csv or .txt list, IDX file, cache "
        "or dataset name; default: digits, unless `unlabeled` is given",
    )
    unlabeled: str | None = Field(
        default=None, description="images to pretrain on; default: the training split of `labels`"
    )
    test: str | None = Field(
        default=None,
        description="test images; default: a split of `labels`, used once, for the figures",
    )
    validation_share: Split = Field(
        default=0.15, description="share of `labels` that choices are made on"
    )
    test_share: Split = Field(
        default=0.25, description="share of `labels` for testing, unless `test`"
    )
    proof: str | None = Field(
        default=None,
        description="further images that are never trained on, to prove quantised files on; they "
        "need no labels",
    )
    held_out: Annotated[int, Field(ge=0)] = Field(
        default=2000,
        description="of 1,000 or more images of `unlabeled`, up to a tenth are kept back from "
        "pretraining, until this many images (test images included) can prove quantised files",
    )
    group_by: str | None = Field(
        default=None,
        description="images that belong together stay on one side of a split: folder, "
        "column:NAME of a .csv list, or regex:PATTERN on file names (its first group)",
    )
    folds: Annotated[int, Field(ge=2, le=20)] | Literal["auto"] | None = Field(
        default="auto",
        description="stratified K-fold instead of a test split, for few labels; auto: 5 when the "
        "test split would have fewer than 50 images; null: never",
    )
    repeats: Annotated[int, Field(ge=1, le=20)] = Field(
        default=2, description="how often the folds are drawn"
    )
    imgsz: Annotated[int, Field(ge=8, le=1024)] = Field(
        default=32, description="input side in pixels"
    )

    @property
    def labelled(self) -> str | None:
        """Where labelled images come from; None if only unlabeled images were given."""
        if self.labels is None and self.unlabeled is None:
            return "digits"
        return self.labels

    @model_validator(mode="after")
    def _leaves_training_images(self) -> Data:
        if self.test is None and self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave no images to train on")
        return self


class Encoder(Section):
    """The network."""

    name: str = Field(default="mobilenet_v1_short", description="see: edgessl list encoders")
    width: WidthText = Field(
        default="1.5x-1x",
        description="one width (1x), host and slim (1.5x-1x), or several slim nets (1.5x-1x-0.5x)",
    )
    stem: Literal["stock", "small"] = Field(
        default="stock", description="small: stride 1 in the stem, for images up to 64 px"
    )
    bn: Literal["switch", "shared"] = Field(
        default="switch",
        description="affine of the BatchNorms per width, or one for all; statistics are always "
        "per width",
    )
    weights: str | None = Field(
        default=None,
        description="imagenet (of torchvision or timm, fetched once) or a local .safetensors or "
        ".pth file of the stock net: a rival to beat, and a start for pretraining",
    )


class Views(Section):
    """Random views for pretraining: a preset, and what differs from it."""

    preset: str | None = Field(
        default=None,
        description="byol_asym, cifar_asym, moco_v2 or ssl_small; finetune for methods of one "
        "view; null: cifar_asym, or finetune where the method uses labels",
    )
    crop_scale: CropScale | None = Field(default=None, description="area of the crop, 0..1")
    flip: Probability | None = Field(
        default=None, description="probability; 0 where left and right differ in meaning"
    )
    jitter: Probability | None = Field(
        default=None,
        description="probability of the four changes of colour together; this one and those that "
        "follow: null as the preset has it, else in every view",
    )
    brightness: Strength | None = Field(default=None, description="strength, 0: none")
    contrast: Strength | None = Field(default=None, description="strength, 0: none")
    saturation: Strength | None = Field(default=None, description="strength, 0: none")
    hue: Annotated[float, Field(ge=0, le=0.5)] | None = Field(
        default=None, description="largest turn of the colour circle, 0..0.5"
    )
    gray: Probability | None = Field(default=None, description="probability of losing all colour")
    blur: Probability | None = Field(default=None, description="probability")
    solarize: Probability | None = Field(default=None, description="probability")
    local: Annotated[int, Field(ge=0, le=16)] = Field(
        default=0, description="further small crops of each image, for methods that take them"
    )
    local_size: Annotated[int, Field(ge=8)] | None = Field(
        default=None, description="side of a local crop in pixels; null: 4/7 of data.imgsz"
    )
    local_scale: CropScale = Field(default=(0.05, 0.3), description="area of a local crop, 0..1")


class Lars(Section):
    """Settings of the optimiser ``lars``."""

    flavour: Literal["solo", "official"] = Field(
        default="solo",
        description="trust ratio of solo-learn, or of the official Barlow Twins and BYOL code",
    )
    eta: Annotated[float, Field(gt=0)] = Field(default=0.02, description="trust coefficient")
    clip: bool = Field(default=True, description="solo: never exceed the step of plain SGD")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.9, description="of the SGD inside"
    )
    exclude_vectors: bool = Field(
        default=True,
        description="biases and BatchNorms get plain SGD without decay; false: the trust ratio "
        "and the decay too",
    )
    bias_lr_mult: Annotated[float, Field(gt=0)] = Field(
        default=1.0,
        description="learning rate of biases and BatchNorms, as a multiple of learning_rate "
        "(official Barlow Twins: 0.024); the other form of a method's scale_loss, not beside it",
    )

    @model_validator(mode="after")
    def _has_a_rate_of_vectors(self) -> Lars:
        clips = self.clip and self.flavour == "solo" and not self.exclude_vectors
        if clips and self.bias_lr_mult != 1:
            raise ValueError(
                f"bias_lr_mult {self.bias_lr_mult:g} would only be a bound where exclude_vectors "
                "is false and clip is true; set clip to false"
            )
        return self


class Monitor(Section):
    """What is watched while pretraining, on images that are trained on."""

    every_epochs: Positive = Field(default=1, description="epochs between measurements")
    images: Annotated[int, Field(ge=32)] = Field(default=1024, description="at most this many")
    collapse: Literal["stop", "warn", "off"] = Field(
        default="stop", description="what to do when the embedding collapses"
    )


class Pretrain(Section):
    """Self-supervised pretraining."""

    starts: Annotated[tuple[Literal["random", "weights"], ...], Field(min_length=1)] | None = Field(
        default=None,
        description="pretrain from random weights, from `encoder.weights`, or once from each; "
        "null: random, and weights too where they are given",
    )
    method: str = Field(default="sacl-xd", description="see: edgessl list methods")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the method")
    views: Views = Views()
    teacher: str | None = Field(
        default=None,
        description="for methods with a teacher: a folder that pretrain or finetune wrote, "
        "ARCH[@WIDTH], ARCH=FILE or ARCH=imagenet",
    )
    epochs: Positive = Field(default=100, description="passes over the images")
    batch: Annotated[int, Field(ge=2)] = Field(default=128, description="images per step")
    optimizer: Literal["adamw", "lars", "sgd"] = Field(
        default="adamw", description="sgd: Nesterov momentum 0.9"
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(
        default=2e-3, description="at its peak, after the warm-up; falls along a cosine"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        default=1e-4, description="not for biases and BatchNorms"
    )
    lars: Lars = Lars()
    warmup: Share = Field(
        default=0.05, description="share of the steps in which the learning rate rises"
    )
    recalibrate_batches: Annotated[int, Field(ge=1)] = Field(
        default=100, description="batches for re-estimating BatchNorm statistics at the end"
    )
    max_seconds: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="time budget; epochs are cut once, before the first step"
    )
    save_every_s: Annotated[float, Field(gt=0)] = Field(
        default=30.0, description="seconds between saved states: what a power cut costs at most"
    )
    monitor: Monitor = Monitor()


class Evaluate(Section):
    """Frozen features: kNN and linear probe."""

    protocols: Annotated[tuple[Literal["knn", "linear"], ...], Field(min_length=1)] = Field(
        default=("knn", "linear"), description="vote of the nearest images, logistic regression"
    )
    neighbours: Positive = Field(default=20, description="images that vote in kNN")


class Labels(Section):
    """How many labels are used, and how often they are drawn."""

    per_class: Positive | None = Field(default=10, description="labels per class; null: all")
    draws: Positive = Field(default=3, description="independent draws of the labels")
    curve: tuple[Positive | None, ...] = Field(
        default=(),
        description="further numbers of labels per class for the label-budget curve of the linear "
        "probe; null: all",
    )


class Finetune(Section):
    """Fine-tuning the slim net, and the same from scratch."""

    scratch: bool = Field(default=True, description="also train from random weights, equal budget")
    widths: Annotated[tuple[SlimText, ...], Field(min_length=1)] | None = Field(
        default=None, description="slim widths to fine-tune, for example [1x]; null: all"
    )
    ship: Literal["pretrained", "best"] = Field(
        default="pretrained",
        description="which net goes on to extraction, by validation: the best pretrained one, or "
        "the best of all, scratch and ImageNet included",
    )
    curve: bool = Field(
        default=False, description="also fine-tune at every budget of `labels.curve`"
    )
    balanced: bool = Field(
        default=False, description="draw every class equally often, for imbalanced labels"
    )
    epochs: Positive = Field(default=50, description="passes over the labelled images")
    batch: Annotated[int, Field(ge=2)] = Field(default=32, description="images per step")
    optimizer: Literal["adamw", "lars", "sgd"] = Field(
        default="adamw", description="sgd: Nesterov momentum 0.9; lars: with its defaults"
    )
    learning_rates: Annotated[tuple[Rate, ...], Field(min_length=1)] = Field(
        default=(1e-3, 3e-3),
        description="the best on validation (first draw) is used for all draws; in folds each "
        "fold chooses its own",
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        default=1e-4, description="not for biases and BatchNorms"
    )
    crop_scale: CropScale = Field(
        default=(0.6, 1.0), description="bounds of the area of the random crop, 0..1"
    )
    flip: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="probability; 0 where left and right differ in meaning"
    )
    max_seconds: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="time budget of the stage; epochs are cut before the first run"
    )


class Export(Section):
    """Files for runtimes."""

    targets: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default=("onnx", "openvino", "tflite"), description="see: edgessl list targets"
    )
    quantize: Literal["none", "dynamic", "fp16", "int8", "w8a16"] = Field(
        default="none", description="none: float32; anything else is written and judged beside it"
    )
    calibration: str | None = Field(
        default=None,
        description="images that the ranges of int8 and w8a16 are taken from; default: training "
        "images",
    )
    calibration_images: Annotated[int, Field(ge=1, le=65536)] = Field(
        default=256, description="how many of them"
    )
    fallback: bool = Field(
        default=True, description="int8: try other ways when the first does not hold its answers"
    )
    max_drop: Annotated[float, Field(gt=0, le=100)] = Field(
        default=1.0, description="points of top-1 that a quantised file may lose, at `confidence`"
    )
    max_shift: Annotated[float, Field(gt=0, le=100)] = Field(
        default=5.0, description="points by which its mean confidence may differ"
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        default=0.95, description="of the bounds, one-sided"
    )
    allow_inconclusive: bool = Field(
        default=False, description="exit 0 also when the images cannot decide"
    )
    analyze: bool = Field(default=False, description="also measure what each layer loses")
    io: Literal["float", "integer"] = Field(
        default="float", description="integer: int8 and w8a16 files take and give integers"
    )
    embed_preprocess: bool = Field(
        default=False, description="normalise inside the file: it takes uint8 NHWC pixels"
    )
    raw_size: tuple[Positive, Positive] | None = Field(
        default=None,
        description="height and width of whole pictures that the file resizes and crops itself; "
        "needs embed_preprocess",
    )
    dynamic_batch: bool = Field(default=False, description="any batch size instead of one")
    opset: Annotated[int, Field(ge=1, le=99)] | None = Field(
        default=None, description="ONNX opset; null: that of the target"
    )
    timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=900.0, description="seconds that a converter may take"
    )
    memory_mb: Positive | None = Field(
        default=None, description="memory that a converter may take; null: as much as there is"
    )

    @model_validator(mode="after")
    def _fits(self) -> Export:
        if self.raw_size is not None and not self.embed_preprocess:
            raise ValueError("raw_size needs embed_preprocess: true")
        if self.io == "integer" and self.quantize not in ("int8", "w8a16"):
            raise ValueError(f"io: integer needs quantize int8 or w8a16, not {self.quantize}")
        if self.io == "integer" and self.embed_preprocess:
            raise ValueError("io: integer and embed_preprocess exclude each other")
        return self


class Bench(Section):
    """Measurement on a device."""

    device: str = Field(
        default="local",
        description="a kind (see: edgessl list devices) or a name (see: edgessl devices list)",
    )
    address: str | None = Field(
        default=None,
        description="of the board: ssh://user@board, adb[:serial]; null: that of the added one",
    )
    python: str | None = Field(default=None, description="interpreter on the board; null: python3")
    setup: bool = Field(
        default=False, description="bring a runtime to a board that lacks it (devices setup)"
    )
    preset: Literal["quick", "standard", "sustained"] = Field(
        default="quick", description="10 s, three times 60 s, or 10 minutes for every file"
    )
    runtime: str | None = Field(
        default=None, description="onnxruntime, openvino, litert or tensorrt; null: by the file"
    )
    provider: str | None = Field(
        default=None, description="execution provider, device or delegate; null: the board's best"
    )
    threads: Positive = Field(default=1, description="threads of the runtime")
    cores: tuple[Annotated[int, Field(ge=0, lt=1024)], ...] | None = Field(
        default=None, description="that the model may use; null: all, on a phone the fastest"
    )
    fixed_performance: bool = Field(
        default=False, description="phones: ask Android for clocks that it can keep up"
    )
    fps: Annotated[float, Field(gt=0, le=10000)] | None = Field(
        default=None, description="images a second at most, with pauses between; null: no pauses"
    )
    energy: bool = Field(
        default=False,
        description="also measure energy: 30 s idle before and after, 60 s and more in between",
    )
    battery_wh: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="watt-hours of the battery, to say how long it lasts"
    )
    power_csv: str | None = Field(
        default=None, description="readings of an external meter, with columns time and watts"
    )
    power_scope: Literal["wall", "usb", "module", "soc", "battery"] = Field(
        default="wall", description="what the external meter sees"
    )
    profile_layers: bool = Field(
        default=False, description="also time each layer, in a pass of its own"
    )
    allow_unstable: bool = Field(
        default=False, description="exit 0 also when a verdict is not VALID; wrong answers stay 5"
    )

    @property
    def measures_energy(self) -> bool:
        """Whether energy is asked for, by name or by what only it needs."""
        return self.energy or self.battery_wh is not None or self.power_csv is not None


class Recipe(Section):
    """The whole recipe."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(
        default="run", description="of the run folder: runs/<name>"
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        default=0, description="of all randomness: weights, order, views, splits, draws"
    )
    data: Data = Data()
    encoder: Encoder = Encoder()
    pretrain: Pretrain = Pretrain()
    labels: Labels = Labels()
    evaluate: Evaluate = Evaluate()
    finetune: Finetune = Finetune()
    export: Export = Export()
    bench: Bench = Bench()

    @property
    def widths(self) -> tuple[float, ...]:
        """Width multipliers of the host and of its slim nets, widest first."""
        return parse_width(self.encoder.width)

    @property
    def slim_labels(self) -> tuple[str, ...]:
        """Names of the slim nets that are fine-tuned, widest first."""
        known = tuple(width_label(width) for width in self.widths[1:])
        chosen = self.finetune.widths
        return known if chosen is None else tuple(w for w in known if w in chosen)

    @property
    def starts(self) -> tuple[str, ...]:
        """Where pretraining starts from, one pretraining each: ``random``, ``weights``."""
        if self.pretrain.starts is not None:
            return self.pretrain.starts
        return ("random", "weights") if self.encoder.weights else ("random",)

    @model_validator(mode="after")
    def _weights_are_named(self) -> Recipe:
        if "weights" in self.starts and self.encoder.weights is None:
            raise ValueError("pretrain.starts names weights, but encoder.weights is null")
        if len(set(self.starts)) != len(self.starts):
            raise ValueError("pretrain.starts names a start twice")
        known = [width_label(width) for width in self.widths[1:]]
        for label in self.finetune.widths or ():
            if label not in known:
                raise ValueError(
                    f"finetune.widths names {label}, but encoder.width has {', '.join(known)}"
                )
        return self
