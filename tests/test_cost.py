"""Costs: published figures reproduced, and every method's passes counted on the method itself."""

import json

import pytest
import torch
from command_line import edgessl
from torch import nn

from edgessl import api_light
from edgessl.cli.cost import text
from edgessl.core import files
from edgessl.core.artifact import Artifact, InputSpec
from edgessl.core.errors import DataInvalid, InvalidInput, RecipeInvalid
from edgessl.core.registry import Entry
from edgessl.core.widths import parse_width
from edgessl.cost.macs import count_macs
from edgessl.cost.training import Passes, stored_bytes
from edgessl.data.view_specs import PRESETS
from edgessl.encoders import ENCODERS
from edgessl.methods import METHODS, base
from edgessl.slimming.extract import NetSpec, build_sliced
from edgessl.slimming.sliced import HOST, Sliced
from edgessl.stages.cost import cost_of
from edgessl.stages.cost_nets import Nets, operations_of
from edgessl.stages.cost_teacher import teacher_cost
from edgessl.stages.recipes import validated

SHORT = "mobilenet_v1_short"


def test_operations_of_a_net_worked_out_by_hand():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),  # 8 x 8 outputs of 4 channels, 27 MACs each
        nn.BatchNorm2d(4),  # 256 outputs
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4),  # depthwise: 4 x 4 x 4, 9 MACs each
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )
    macs = 256 * 27 + 64 * 9 + 4 * 5
    assert count_macs(net, 8, 8) == macs
    assert operations_of(net, 8) == {"macs": macs, "seed_compat": macs + 4 * 256}
    assert not any(layer._forward_hooks for layer in net.modules())  # left as it was
    assert all(not tensor.is_meta for tensor in net.parameters())


TEACHER = 10_000.0  # what a pass of the teacher weighs in the test below


@pytest.mark.parametrize("width", ["0.25x", "0.5x-0.25x", "0.75x-0.5x-0.25x"])
@pytest.mark.parametrize("name", list(METHODS))
def test_the_table_says_the_passes_that_a_method_makes(name, width):
    """A pass with gradient is three units, one without is one; a teacher's passes count too."""
    passes, kind = Passes.of(METHODS[name].facts), METHODS.load(name)
    assert any(len(specs) >= kind.views for specs in PRESETS.values())
    slims = width.count("-")
    units = []

    def count(x, output, weight):
        with_gradient = 3 if output.requires_grad else 1
        units.append(weight * with_gradient * len(x) / 4)  # keys are encoded in groups

    try:
        said = passes.operations(100.0, [1.0] * slims, teacher=TEACHER)
    except RecipeInvalid:
        with pytest.raises(RecipeInvalid, match="width"):
            built(kind, width, count)
        return
    method, forward = built(kind, width, count), Sliced.forward

    def counted(self, x, *, width, **options):
        output = forward(self, x, width=width, **options)
        if x.ndim == 4:  # images: an encoder, not a projector
            count(x, output, 100 if not slims or width == HOST else 1)
        return output

    views = [torch.randn(4, 3, 16, 16) for _ in range(kind.views)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sliced, "forward", counted)
        method.train()(views, *([torch.tensor([0, 1, 2, 0])] if kind.uses_labels else []))
    assert sum(units) == said


def built(kind, width, count):
    """A method with small nets; passes of its teacher, and of copies of it, are counted."""
    architecture, (host, *slims) = ENCODERS.load(SHORT), parse_width(width)
    net = build_sliced(architecture, NetSpec(SHORT, host, tuple(slims), "stock", "switch"), seed=0)
    group = architecture.feature_group(net.host)
    features = {label: slim.plan.groups[group] for label, slim in net.slims.items()}
    teacher = None
    if kind.teacher_kind in ("frozen", "online"):
        network = architecture.network(0.25, classes=None)
        network.register_forward_hook(lambda _, inputs, out: count(inputs[0], out, TEACHER))
        teacher = base.Teacher(network, architecture.feature_size(0.25), None, "teacher")
    parts = base.Parts(encoder=net, features=features, teacher=teacher, classes=3)
    # with labels a classifier reads the features: there is no projector
    return kind(parts, kind.Options(**({} if kind.uses_labels else {"projector": (8, 8)})))


def test_a_method_is_refused_at_widths_that_it_does_not_train():
    with pytest.raises(RecipeInvalid, match="one width"):
        Passes(None, None, 6).operations(2.0, [1.0])
    with pytest.raises(RecipeInvalid, match="needs a slim net"):
        Passes(4, 4, None).operations(2.0, [])
    assert Passes(4, 4, 6).operations(2.0, [1.0, 0.5]) == 4 * 2 + 4 * 1 + 4 * 0.5


def test_teacher_and_local_crops_come_on_top():
    passes = Passes.of({"dense_units": 3, "host_units": 4, "slim_units": 2, "teacher_units": 1})
    assert passes == Passes(4, 2, 3, teacher=1)
    assert passes.text(0) == "3 S + 1 T"
    assert passes.operations(2.0, [], teacher=50.0) == 3 * 2 + 50
    assert passes.operations(2.0, []) == 3 * 2  # the student's part
    crops = Passes(4, 4, 6, local=12)  # four local crops, with gradient
    assert crops.operations(8.0, [2.0, 1.0], local=0.75) == 4 * 8 + 4 * 3 + 12 * 0.75
    assert crops.text(1) == "4 H + 4 S + 12 L"


def test_decoded_images_are_three_bytes_a_pixel():
    assert stored_bytes(1000, 256) == 1000 * 256 * 256 * 3


def test_cost_takes_its_values_from_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edgessl.yaml").write_text(
        "encoder: {name: mobilenet_v1_short, width: 0.5x-0.25x}\ndata: {imgsz: 16}\n"
        "pretrain: {epochs: 3, batch: 100}\n"
    )
    result = api_light.cost(images=1050).result
    assert result["values_from"] == "edgessl.yaml"
    # 10 whole batches of 100 per epoch: the last, smaller one is left out of pretraining
    assert (result["training"]["steps"], result["training"]["images"]) == (30, 1050)
    host, slim = result["nets"]
    per_image = 4 * host["macs"] + 4 * slim["macs"]
    assert result["per_image"]["macs"] == per_image
    assert result["training"]["flops"]["macs"] == 2 * per_image * 1000 * 3
    assert result["stored_images"] == {"side": 16, "bytes": 1050 * 16 * 16 * 3, "where": "memory"}
    assert result["kind"] == "computed"
    with pytest.raises(DataInvalid, match="fewer than one batch"):
        api_light.cost(images=99)
    # the digits that a recipe without images means: 60 % of 1,797 are trained on
    assert api_light.cost().result["training"]["images"] == 1078


def recipe(method="sacl-xd", width="0.5x-0.25x", teacher=None, **pretrain):
    section = {"method": method, "batch": 10, "epochs": 2, "teacher": teacher} | pretrain
    encoder = {"name": SHORT, "width": width}
    return validated({"encoder": encoder, "data": {"imgsz": 16}, "pretrain": section})


def flops(method, width, *, epochs=2, **more):
    found = cost_of(recipe(method, width, epochs=epochs), 100, **more)
    return found["training"]["flops"]["macs"]


def test_flops_are_linear_in_epochs_and_a_wider_host_costs_more():
    """Self-check 41."""
    assert flops("sacl-xd", "0.5x-0.25x", epochs=6) == 3 * flops("sacl-xd", "0.5x-0.25x")
    assert flops("xd", "0.25x") == flops("sacl-xd", "0.25x") < flops("sacl-xd", "0.5x-0.25x")


def test_every_method_stands_beside_the_chosen_one():
    found = cost_of(recipe("sacl", "0.75x-0.5x-0.25x"), 100)
    rows = {row["method"]: row for row in found["compared"]}
    assert list(rows) == list(METHODS)
    assert rows["sacl"]["ratio"] == {"macs": 1.0, "seed_compat": 1.0}
    assert rows["sacl"]["flops"] == found["training"]["flops"]
    host, *slims = (net["macs"] for net in found["nets"])
    expected = (4 * host + 4 * sum(slims)) / (3 * host + 3 * sum(slims))
    assert rows["sacl-xd"]["ratio"]["macs"] == pytest.approx(expected, abs=1e-4)
    # what trains one width has to be run once for every slim net that SACL trains at once
    assert rows["barlow"]["widths"] == ["0.5x", "0.25x"]
    assert rows["barlow"]["flops"]["macs"] == 2 * 6 * sum(slims) * 100 * 2


def test_projectors_are_told_and_left_out():
    options = {"options": {"projector": [10, 20]}}
    found = cost_of(recipe("barlow", "0.25x", **options), 100)
    (net,) = found["nets"]
    assert net["features"] == 128
    assert net["projector_macs"] == 128 * 10 + 10 * 20
    assert found["per_image"]["macs"] == 6 * net["macs"]
    assert "projector is large" not in text(found | {"values_from": "defaults"})
    wide = cost_of(recipe("barlow", "0.25x", options={"projector": [2048, 2048]}), 100)
    assert wide["per_image"] == found["per_image"]
    assert "projector is large" in text(wide | {"values_from": "defaults"})


class Taught(base.Method):
    """One pass with gradient, one of a frozen teacher, and local crops."""

    teacher_kind, takes_local = "frozen", True


@pytest.fixture
def taught(monkeypatch):
    facts = {"dense_units": 3, "teacher_units": 1}
    monkeypatch.setitem(METHODS.entries, "taught", Entry(f"{__name__}:Taught", "", facts=facts))


def test_a_teacher_is_counted_while_it_teaches_and_its_pretraining_apart(taught):
    given = recipe("taught", "0.25x", teacher="resnet18@0.5x")
    found = cost_of(given, 100, teacher_epochs=7)
    student = found["nets"][0]["macs"]
    teacher = Nets("resnet18", "stock", 16).one_pass(0.5)
    assert found["teacher"]["one_pass"] == teacher
    assert found["passes"] == "3 S + 1 T"
    assert found["training"]["flops"]["macs"] == 2 * (3 * student + teacher["macs"]) * 100 * 2
    # 7 epochs of MoCo-v2, 4 units
    assert found["training"]["flops_before"]["macs"] == 2 * 4 * teacher["macs"] * 100 * 7
    rows = {row["method"]: row for row in found["compared"]}
    assert (rows["taught"]["ratio"]["macs"], rows["taught"]["ratio_with_teacher"]["macs"]) == (1, 1)
    both = found["training"]["flops"]["macs"] + found["training"]["flops_before"]["macs"]
    alone = rows["barlow"]["flops"]["macs"]
    assert rows["barlow"]["ratio_with_teacher"]["macs"] == pytest.approx(alone / both, abs=1e-4)
    shown = text(found | {"values_from": "defaults"})
    assert "T: resnet18@0.5x, " in shown
    assert "assumed; --teacher-epochs changes it" in shown


def test_a_teacher_that_nobody_named_is_told_as_an_assumption(taught):
    found = cost_of(recipe(), 100)
    assert found["teacher"] is None  # SACL+XD has none
    assert found["compared_teacher"]["name"] == "resnet50"
    assert found["compared_teacher"]["assumed"]
    assert "resnet50 (assumed; --teacher names another)" in text(found | {"values_from": "x"})
    with pytest.raises(RecipeInvalid, match="resnet5 is no folder here, and no encoder"):
        cost_of(recipe(), 100, teacher="resnet5")
    for wrong in ("resnet18@wide", "resnet18@2x-1x"):
        with pytest.raises(RecipeInvalid, match="is not a single one"):
            cost_of(recipe(), 100, teacher=wrong)


def test_the_pretraining_of_an_own_teacher_is_what_it_was(tmp_path):
    folder = tmp_path / "teacher"
    files.write_bytes(folder / "encoder.safetensors", b"")
    facts = {
        "form": "host", "architecture": "resnet18", "host_width": 0.5, "slim_widths": [0.5],
        "stem": "stock", "method": "barlow", "options": {}, "epochs": 9, "images": 40,
    }  # fmt: skip
    Artifact.sealed(
        folder, ["encoder.safetensors"], artifact_kind="encoder", format="safetensors",
        input=InputSpec.square(32), facts=facts,
    )  # fmt: skip
    found = teacher_cost(recipe(), images=100, epochs=2, name=str(folder))
    assert found.one_pass == Nets("resnet18", "stock", 16).one_pass(0.5)
    at_32_px = Nets("resnet18", "stock", 32).one_pass(0.5)["macs"]
    assert not found.pretraining["assumed"]
    assert found.pretraining["flops"]["macs"] == 2 * 6 * at_32_px * 40 * 9


def test_local_crops_are_counted_at_their_own_size(taught):
    views = {"preset": "moco_v2", "local": 2, "local_size": 8}
    given = recipe("taught", "0.25x", teacher="resnet18", views=views)
    found = cost_of(given, 100)
    nets = Nets(SHORT, "stock", 16)
    assert found["local_crops"] == {"count": 2, "side": 8}
    assert found["passes"] == "3 S + 6 L + 1 T"  # two crops with gradient
    assert found["per_image"]["macs"] == (
        3 * nets.one_pass(0.25)["macs"] + 6 * nets.one_pass(0.25, 8)["macs"]
        + found["teacher"]["one_pass"]["macs"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("method", "width", "options", "first"),
    [
        # SEED's one view with gradient, and its teacher, for 5 of 20 epochs
        ("ssl-small", "0.25x", {"init": "seed"}, (5, "3 S + 1 T")),
        # the host alone on both views: Barlow Twins
        ("sacl-xd", "0.5x-0.25x", {"slim_start_epoch": 4}, (4, "6 H")),
        ("sacl", "0.25x", {"slim_start_epoch": 4}, (4, "6 S")),
    ],
)
def test_first_epochs_that_train_otherwise_cost_otherwise(method, width, options, first):
    teacher = "resnet18" if method == "ssl-small" else None
    usual = flops(method, width, epochs=20)
    found = cost_of(recipe(method, width, epochs=20, options=options, teacher=teacher), 100)
    epochs, passes = first
    assert found["first_epochs"] == [{"epochs": epochs, "passes": passes}]
    net, s_or_h = found["nets"][0]["macs"], int(passes[0])
    step = s_or_h * net + (found["teacher"]["one_pass"]["macs"] if "T" in passes else 0)
    expected = usual * (20 - epochs) / 20 + 2 * step * 100 * epochs
    assert found["training"]["flops"]["macs"] == pytest.approx(expected, rel=1e-12)
    shown = text(found | {"values_from": "defaults"})
    assert f"first {epochs} epochs:     {passes} instead (" in shown


def test_a_warm_start_is_taught_and_without_one_nobody_teaches():
    seed = recipe("ssl-small", "0.25x", options={"init": "seed"}, epochs=9)
    found = cost_of(seed, 100)
    assert found["teacher"]["assumed"]  # resnet50
    assert found["training"]["flops_before"] == found["teacher"]["pretraining"]["flops"]
    found = cost_of(recipe("ssl-small", "0.25x"), 100, teacher="resnet18")
    assert found["teacher"] is None
    assert found["training"]["flops_before"] is None
    assert found["compared_teacher"]["name"] == "resnet18"


@pytest.mark.parametrize(
    ("encoder", "width", "side", "why"),
    [
        ("mobilenet_v3_small", "1.5x-0.5x", 64, "residual connection"),
        ("mobilenet_v1_short", "0.25x-0.5x", 64, "width"),
        ("timm:vit_tiny_patch16_224", "1x", 64, "cannot take images of 64 px"),
        ("timm:convnext_atto", "1x", 64, "cannot be sliced"),
        ("timm:vgg11_bn", "0.5x", 16, "cannot take images of 16 px"),
    ],
)
def test_nets_that_pretraining_would_refuse_are_refused(encoder, width, side, why):
    pytest.importorskip("timm", reason="timm is not installed (extra: timm)")
    with pytest.raises(InvalidInput, match=why):
        cost_of(
            validated({
                "encoder": {"name": encoder, "width": width}, "data": {"imgsz": side},
                "pretrain": {"method": "sacl", "batch": 10},
            }),
            100,
        )  # fmt: skip


def test_a_method_with_labels_asks_for_them(tmp_path):
    _, err = edgessl("cost", "--method", "supervised", "--width", "1x",
                     "--set", "data.unlabeled=digits", cwd=tmp_path, expect=3)  # fmt: skip
    assert "supervised learns from labels" in err


def test_the_command_says_what_was_counted(tmp_path):
    out, err = edgessl("cost", "--images", "5000", "--width", "1x", cwd=tmp_path)
    assert "nothing was measured" in out
    assert "6 S" in out
    assert "every method on this encoder" in out
    assert "next: edgessl pretrain" in err
    out, _ = edgessl("cost", "--method", "nosuch", "--json", cwd=tmp_path, expect=2)
    assert json.loads(out)["error"]["code"] == 2
