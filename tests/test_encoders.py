"""Encoders at any width against torchvision's and timm's own classes, and nets from files."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from edgessl.core.artifact import Artifact, InputSpec
from edgessl.core.errors import FileInvalid
from edgessl.cost.macs import count_macs
from edgessl.encoders import ENCODERS
from edgessl.encoders.edits import edits_as_code
from edgessl.encoders.loading import load_model, read_tensors, write_tensors
from edgessl.slimming.extract import NetSpec, build_sliced, extract

STOCK = tuple(name for name in ENCODERS if ENCODERS.load(name).stock_class)
# parameters of the published 1x nets with a 1000-way head (documentation of torchvision, timm)
PARAMETERS = {
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_large": 5_483_032,
    "mobilenet_v3_small": 2_542_856,
    "mobilenetv4_conv_small": 3_774_024,
    "efficientnet_b0": 5_288_548,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
}
# hosts of 1.5x that are too large for a quick test
QUICK_FIRST = [
    pytest.param(name, marks=pytest.mark.slow) if name in {"resnet50", "resnet101"} else name
    for name in STOCK
]
WIDTHS = [
    (name, width)
    for name in STOCK
    for width in (0.5, 1.0, 1.5)
    if ENCODERS.load(name).stock_code(width, 10)
]


def stock(name, width=1.0, classes=10):
    """The module of torchvision or timm itself, from the expression that is given to users."""
    code = ENCODERS.load(name).stock_code(width, classes)
    return eval(code, {"torchvision": torchvision, "timm": timm})


@pytest.mark.parametrize(("name", "width"), WIDTHS)
def test_state_dicts_fit_the_stock_class_and_outputs_are_equal(name, width):
    ours, theirs = ENCODERS.load(name).network(width, classes=10), stock(name, width)
    ours.train()(torch.randn(8, 3, 64, 64))  # statistics other than the initial
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("name", STOCK)
def test_the_code_given_for_a_small_stem_makes_the_stock_net_compute_it(name):
    architecture = ENCODERS.load(name)
    ours, theirs = architecture.network(1.0, classes=10, stem="small").eval(), stock(name).eval()
    changes = edits_as_code(architecture.edits("small"))
    exec(changes, {"net": theirs, "torch": torch})
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
        assert not torch.allclose(ours(x), architecture.network(1.0, classes=10).eval()(x))


@pytest.mark.parametrize("name", QUICK_FIRST)
def test_the_extracted_net_is_the_published_one(name):
    architecture, spec = ENCODERS.load(name), NetSpec(name, 1.5, (1.0,))
    plain = extract(architecture, spec, build_sliced(architecture, spec), "1x")
    features = architecture.feature_size(1.0)
    full = sum(p.numel() for p in plain.parameters()) + 1000 * (features + 1)
    assert full == PARAMETERS[name]
    parent, _, leaf = architecture.head.rpartition(".")
    setattr(plain.get_submodule(parent), leaf, nn.Linear(features, 10))
    stock(name).load_state_dict(plain.state_dict(), strict=True)


@pytest.mark.parametrize(("name", "features"), [("large", 960), ("small", 576)])
@pytest.mark.parametrize("width", [1.0, 0.5])
def test_pooled_features_are_those_before_the_classifier_of_torchvision(name, features, width):
    ours = ENCODERS.load(f"mobilenet_v3_{name}_pooled").network(width, classes=None).eval()
    theirs = stock(f"mobilenet_v3_{name}", width).eval()
    told = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert {key.split(".")[0] for key in told.missing_keys} == {"classifier"}
    assert not told.unexpected_keys
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        pooled = theirs.avgpool(theirs.features(x)).flatten(1)
        assert torch.equal(ours(x), pooled)
    assert pooled.shape == (2, features * width)


@pytest.mark.parametrize("name", tuple(ENCODERS))
def test_every_tensor_has_its_channel_groups(name):
    architecture = ENCODERS.load(name)
    net = architecture.network(1.0, classes=7)
    axes = architecture.channel_axes(net)
    assert set(axes) == set(net.state_dict())
    assert all(len(axes[k]) == t.ndim for k, t in net.state_dict().items())
    facts = ENCODERS[name].facts
    assert facts["features_1x"] == architecture.feature_size(1.0)
    assert facts["imagenet_weights"] == (architecture.weights is not None)


# conv and Linear MACs at 224 px with a 1000-way head, in millions (torchvision's documentation)
MACS = {
    "mobilenet_v1": 568.7, "mobilenet_v2": 300.8, "mobilenet_v3_large": 216.6,
    "mobilenet_v3_small": 56.5, "mobilenetv4_conv_small": 186.0, "efficientnet_b0": 385.8,
    "resnet18": 1814.1, "resnet34": 3663.8, "resnet50": 4089.2, "resnet101": 7801.4,
}  # fmt: skip


@pytest.mark.parametrize("name", tuple(ENCODERS))
def test_multiply_accumulates_are_those_listed(name):
    macs = count_macs(ENCODERS.load(name).network(1.0, classes=1000), 224, 224) / 1e6
    assert ENCODERS[name].facts["macs_1x_224_m"] == pytest.approx(macs, abs=0.05)
    assert macs == pytest.approx(MACS.get(name, macs), abs=0.06)


@pytest.mark.parametrize(
    ("width", "parameters_m", "macs_m"), [(1, 4.2, 569), (0.75, 2.6, 325), (0.5, 1.3, 149)]
)
def test_mobilenet_v1_has_the_size_of_its_paper_at_every_width(width, parameters_m, macs_m):
    """Table 6 of arXiv:1704.04861."""
    net = ENCODERS.load("mobilenet_v1").network(width, classes=1000)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(parameters_m, abs=0.05)
    assert count_macs(net, 224, 224) / 1e6 == pytest.approx(macs_m, abs=1)


def conv_macs(kernel, inputs, outputs, side):
    return kernel * kernel * inputs * outputs * side * side


def test_resnet_20_has_the_size_of_its_paper():
    """Section 4.2 of arXiv:1512.03385: 6n + 2 layers, n = 3, 0.27 million parameters."""
    net = ENCODERS.load("resnet20").network(1.0, classes=10)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    shortcuts = 16 * 32 + 32 * 64
    assert len([m for m in convs if m.kernel_size == (3, 3)]) + 1 == 20
    assert sum(m.weight.numel() for m in convs if m.kernel_size == (1, 1)) == shortcuts
    norms = 2 * (7 * 16 + 7 * 32 + 7 * 64)  # six and a shortcut a stage; the stem in its place
    convolutions = 9 * (3 * 16 + 6 * 16**2 + 16 * 32 + 5 * 32**2 + 32 * 64 + 5 * 64**2)
    assert sum(p.numel() for p in net.parameters()) == convolutions + shortcuts + norms + 650
    hand = [
        conv_macs(3, 3, 16, 32), 6 * conv_macs(3, 16, 16, 32),
        conv_macs(3, 16, 32, 16), 5 * conv_macs(3, 32, 32, 16), conv_macs(1, 16, 32, 16),
        conv_macs(3, 32, 64, 8), 5 * conv_macs(3, 64, 64, 8), conv_macs(1, 32, 64, 8), 640,
    ]  # fmt: skip
    assert count_macs(net, 32, 32) == sum(hand) == 40_813_184


@pytest.mark.parametrize("name", tuple(ENCODERS))
def test_features_come_out_without_a_head_and_keep_their_resolution_with_a_small_stem(name):
    architecture = ENCODERS.load(name)
    x = torch.randn(2, 3, 32, 32)
    sizes = {}
    for stem in ("stock", "small"):
        net = architecture.network(0.5, classes=None, stem=stem).eval()
        seen = []
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
                layer.register_forward_hook(lambda *a, s=seen: s.append(a[2].shape))
        with torch.no_grad():
            assert net(x).shape == (2, architecture.feature_size(0.5))
        sizes[stem] = seen[-1][-1]
    if architecture.small_stem:
        assert sizes["small"] >= 2 * sizes["stock"]
    else:
        assert sizes["stock"] >= 8  # made for small images


def test_initialisation_is_seeded_and_leaves_the_global_generator_alone():
    architecture = ENCODERS.load("mobilenet_v1_short")
    state = torch.get_rng_state()
    first, again, other = (architecture.network(0.5, classes=3, seed=s) for s in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), state)
    name = "features.1.0.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


@pytest.mark.parametrize("name", tuple(ENCODERS))
def test_depthwise_outputs_start_at_unit_scale(name):
    """Fan-out divided by groups: variance 2 / (k * k) a weight, not 2 / (C * k * k)."""
    net = ENCODERS.load(name).network(1.0, classes=None)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups >= 64:
            expected = (2 / (layer.kernel_size[0] * layer.kernel_size[1])) ** 0.5
            assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.2)


def sealed_model(folder: Path, name="mobilenet_v1_short") -> nn.Module:
    architecture = ENCODERS.load(name)
    net = architecture.network(0.25, classes=3, stem="small", seed=3).eval()
    write_tensors(folder / "model.safetensors", dict(net.state_dict()))
    edits = [asdict(edit) for edit in architecture.small_stem]
    Artifact.sealed(
        folder, ["model.safetensors"], artifact_kind="model", format="safetensors",
        input=InputSpec.square(16), labels=tuple("abc"),
        facts={"form": "plain", "architecture": name, "width": 0.25, "edits": edits},
    )  # fmt: skip
    return net


@pytest.mark.parametrize("name", tuple(ENCODERS))
def test_a_model_artifact_gives_the_same_net_stem_included(tmp_path, name):
    net = sealed_model(tmp_path, name)
    loaded, artifact = load_model(tmp_path)
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded(x), net(x))
    assert artifact.labels == ("a", "b", "c")


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("EXECUTED"),))


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_is_refused_and_never_run(tmp_path, monkeypatch, protocol):
    import pickle

    monkeypatch.chdir(tmp_path)
    for name in ("plain.safetensors", "zip.safetensors"):
        path = tmp_path / name
        if name.startswith("zip"):
            torch.save({"x": Bomb()}, path)
        else:
            path.write_bytes(pickle.dumps(Bomb(), protocol=protocol))
        with pytest.raises(FileInvalid, match="pickle"):
            read_tensors(path)
    assert not (tmp_path / "EXECUTED").exists()


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.arange(100.0)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FileInvalid, match="not a whole safetensors"):
        read_tensors(path)


def test_tensors_that_do_not_fit_are_named(tmp_path):
    sealed_model(tmp_path)
    document = (tmp_path / "model.json").read_text().replace('"width": 0.25', '"width": 0.5')
    (tmp_path / "model.json").write_text(document)
    with pytest.raises(FileInvalid, match=r"does not fit.*features"):
        load_model(tmp_path)


def test_writing_tensors_is_deterministic(tmp_path):
    tensors = {
        "b": torch.randn(3, 4).t(),
        "a": torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    write_tensors(tmp_path / "1", tensors)
    write_tensors(tmp_path / "2", dict(reversed(tensors.items())))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert torch.equal(read_tensors(tmp_path / "1")["b"], tensors["b"])


STRICT = """
import sys
import torch, torchvision
from safetensors.torch import load_file
assert not any(m == "edgessl" or m.startswith("edgessl.") for m in sys.modules)
net = torchvision.models.mobilenet_v3_large(num_classes=10).eval()
net.load_state_dict(load_file(sys.argv[1]), strict=True)
with torch.no_grad():
    got = net(load_file(sys.argv[2])["x"])
assert torch.equal(got, load_file(sys.argv[2])["y"])
print("equal")
"""


@pytest.mark.slow
def test_the_extracted_v3_large_runs_in_torchvision_without_edgessl(tmp_path):
    """A 1.5x-1x host with a head on its slim net, extracted, in a script of its own."""
    from edgessl.evaluation.finetune import with_head

    name = "mobilenet_v3_large"
    architecture, spec = ENCODERS.load(name), NetSpec(name, 1.5, (1.0,))
    sliced = build_sliced(architecture, spec, seed=7)
    sliced.train()(torch.randn(8, 3, 64, 64), width="1x")  # statistics other than the initial
    plain = extract(architecture, spec, sliced, "1x")
    with_head(plain, architecture.head, architecture.feature_size(1.0), 10, seed=0)
    plain.eval()
    x = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        write_tensors(tmp_path / "io.safetensors", {"x": x, "y": plain(x)})
    write_tensors(tmp_path / "model.safetensors", dict(plain.state_dict()))
    script = tmp_path / "strict.py"
    script.write_text(STRICT)
    done = subprocess.run(
        [sys.executable, str(script), "model.safetensors", "io.safetensors"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.strip() == "equal", done.stderr
