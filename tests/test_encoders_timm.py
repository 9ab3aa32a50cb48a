"""Networks of timm at any width: against timm's own classes, and what is refused and why."""

import re
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from edgessl.core.errors import FileInvalid, InvalidInput, MissingExtra, UsageProblem
from edgessl.encoders import ENCODERS
from edgessl.encoders.edits import edits_as_code
from edgessl.encoders.groups import NotSliced, channel_groups
from edgessl.encoders.weights import stock_weights
from edgessl.slimming.extract import NetSpec, build_sliced, extract, largest_difference
from edgessl.slimming.start import fill_sliced
from edgessl.stages.encoder_facts import encoder_facts

# one or two of each family, the smallest there is
FAMILIES = (
    "test_resnet", "test_efficientnet", "test_byobnet",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("mobilenetv3_small_050", "lcnet_050", "tinynet_e", "mnasnet_small",
                     "efficientnet_lite0", "hardcorenas_a", "fbnetc_100", "resnet18")
    ),
)  # fmt: skip
SMALL = "test_efficientnet"


def architecture(name):
    return ENCODERS.load(f"timm:{name}")


def stock(name, classes=10):
    """The module of timm itself, from the expression that is given to users."""
    return eval(architecture(name).stock_code(1.0, classes), {"timm": timm})


def images(n=2, side=32):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", FAMILIES)
def test_1x_is_timms_own_and_other_widths_are_slices(name):
    ours, theirs = architecture(name).network(1.0, classes=10), stock(name)
    ours.train()(images())  # statistics other than the initial
    theirs.load_state_dict(ours.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(ours.eval()(images()), theirs.eval()(images()))
    spec = NetSpec(f"timm:{name}", 1.5, (1.0, 0.5))
    sliced = build_sliced(architecture(name), spec)
    for label in spec.labels:
        plain = extract(architecture(name), spec, sliced, label)
        assert largest_difference(plain, sliced, label, images()) < 1e-5
        assert plain(images()).shape == (2, architecture(name).feature_size(spec.width(label)))
    stock(name).load_state_dict(
        extract(architecture(name), spec, sliced, "1x").state_dict(), strict=False
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_the_code_given_for_a_small_stem_makes_the_stock_net_compute_it(name):
    ours, theirs = architecture(name).network(1.0, classes=10, stem="small").eval(), stock(name)
    exec(edits_as_code(architecture(name).small_stem), {"net": theirs, "torch": torch})
    theirs.load_state_dict(ours.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(ours(images()), theirs.eval()(images()))
    sides = {}
    for stem in ("stock", "small"):
        net, seen = architecture(name).network(1.0, classes=None, stem=stem).to("meta"), []
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
                layer.register_forward_hook(lambda *a, s=seen: s.append(a[2].shape[-1]))
        net(images(side=128).to("meta"))
        sides[stem] = min(seen)
    assert sides["small"] >= 4 * sides["stock"]  # both halvings are gone


def test_widths_are_multiples_of_eight_on_their_side_of_the_stock_net():
    net = architecture("mobilenetv3_small_050")
    stock_shapes = {n: t.shape for n, t in net.network(1.0, classes=7).state_dict().items()}
    axes = net.channel_axes(nn.Identity())
    for width in (0.25, 0.75, 1.25, 2.0):
        for name, tensor in net.network(width, classes=7).state_dict().items():
            for group, size, before in zip(
                axes[name], tensor.shape, stock_shapes[name], strict=True
            ):
                if group is None:
                    assert size == before
                    continue
                assert size % 8 == 0 or size == before
                assert size <= before if width < 1 else size >= before
                assert size >= 0.9 * width * before or size == before


def test_regularisers_are_off_so_that_two_passes_are_the_same_function():
    """A net that can be sliced was watched while training: nothing in it is random."""

    def chances(net):
        parts = ("drop_rate", "drop_prob", "p")
        return {float(getattr(m, p)) for m in net.modules() for p in parts if hasattr(m, p)}

    assert max(chances(timm.create_model("ghostnet_100"))) > 0
    assert chances(architecture("ghostnet_100").network(1.0, classes=3)) == {0.0}


def test_initialisation_is_seeded_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (architecture(SMALL).network(0.5, classes=3, seed=s) for s in (4, 4, 5))
    architecture("test_resnet").feature_size(1.5)
    assert torch.equal(torch.get_rng_state(), state)
    for (name, one), two, three in zip(
        first.named_parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(one, two), name
        if one.ndim == 4:
            assert not torch.equal(one, three), name


# ------------------------------------------------------------------------------ what groups are


@pytest.mark.parametrize("name", tuple(ENCODERS))
def test_groups_found_by_watching_are_those_written_by_hand(name):
    net = ENCODERS.load(name).network(1.0, classes=7)
    by_hand, found = ENCODERS.load(name).channel_axes(net), channel_groups(net, 64, 64).axes
    assert set(by_hand) == set(found)
    renamed = {}
    for tensor, groups in by_hand.items():
        for ours, theirs in zip(groups, found[tensor], strict=True):
            assert renamed.setdefault(ours, theirs) == theirs, tensor
    assert renamed.pop(None) is None
    assert len(set(renamed.values())) == len(renamed)


class Net(nn.Module):
    """A convolution, something, a classifier."""

    def __init__(self, middle, channels=16):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.middle = middle
        self.head = nn.Linear(channels, 5)

    def forward(self, x):
        return self.head(self.middle(self.stem(x)).mean((2, 3)))


class Does(nn.Module):
    def __init__(self, what, **layers):
        super().__init__()
        self.what = what
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.what(self, x)


def scale(layer, x):
    return x * layer.gamma.view(1, -1, 1, 1)


def gate(layer, x):
    return x * layer.conv(x.mean((2, 3), keepdim=True)).sigmoid()


def test_scales_gates_and_sums_join_channels():
    net = Net(nn.Sequential(
        Does(scale, gamma=nn.Parameter(torch.ones(16))),
        Does(gate, conv=nn.Conv2d(16, 16, 1)),
        Does(lambda s, x: x + s.conv(x), conv=nn.Conv2d(16, 16, 3, padding=1)),
    ))  # fmt: skip
    axes = channel_groups(net, 16, 16).axes
    assert {group for groups in axes.values() for group in groups} == {"stem", None}
    assert axes["middle.1.conv.weight"] == ("stem", "stem", None, None)
    assert axes["head.weight"] == (None, "stem")


REFUSED = {
    "takes a sum or mean over all channels": lambda s, x: x * x.mean(1, keepdim=True),
    "softmax is taken over channels": lambda s, x: x * x.softmax(1),
    "splits channels": lambda s, x: torch.cat([x[:, :8]] * 2, 1),
    "concatenates channels": lambda s, x: torch.cat([x, x], 1),
    "pads channels": lambda s, x: F.pad(x, (0, 0, 0, 0, 1, 1)),
    "reshape": lambda s, x: x.view(len(x), 4, 4, *x.shape[2:]).transpose(1, 2).reshape(x.shape),
    "another axis": lambda s, x: x + x.transpose(1, 2),
    "random while training": lambda s, x: F.dropout(x, 0.5, s.training),
    "not known whether 'sort'": lambda s, x: x.sort(1)[0],
}
LAYERS = {
    "works in 4 groups of 4": nn.Conv2d(16, 16, 3, padding=1, groups=4),
    "works in 16 groups of 1": nn.Conv2d(16, 32, 3, padding=1, groups=16),
    "transposed": nn.ConvTranspose2d(16, 16, 2, 2),
    "LayerNorm": nn.LayerNorm([16, 16, 16]),
    "GroupNorm": nn.GroupNorm(4, 16),
}


@pytest.mark.parametrize("why", [*REFUSED, *LAYERS])
def test_what_cannot_be_sliced_is_named_with_its_module(why):
    middle = Does(REFUSED[why]) if why in REFUSED else LAYERS[why]
    with pytest.raises(NotSliced, match=f"^middle: .*{why}"):
        channel_groups(Net(middle), 16, 16)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("test_convnext", r"at stem\.1: LayerNorm"),
        ("regnety_002", r"at s1\.b1\.conv2\.conv: its convolution works in 3 groups of 8 channels"),
        ("test_nfnet", r"at stem\.conv1: its weights are computed \(weight standardisation"),
        ("test_vit", r"at blocks\.0\.norm1: LayerNorm"),
        ("test_efficientnet_gn", r"at bn1: GroupNorm"),
        ("ghostnet_100", r"at blocks\.0\.0\.ghost1: it concatenates channels"),
    ],
)
def test_a_net_that_cannot_be_sliced_can_be_a_teacher_only(name, why):
    assert architecture(name).network(1.0, classes=None) is not None
    with pytest.raises(InvalidInput, match=f"timm:{name} cannot be sliced, {why}") as raised:
        build_sliced(architecture(name), NetSpec(f"timm:{name}", 1.0, (1.0,)))
    assert raised.value.exit_code == 3
    assert "teacher" in raised.value.hint
    with pytest.raises(InvalidInput, match="cannot be sliced"):
        architecture(name).network(0.5, classes=None)


def test_a_net_whose_code_counts_on_its_channels_is_refused(monkeypatch):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.default_cfg = {"input_size": (3, 16, 16)}
            self.net = Net(nn.Identity())

        def get_classifier(self):
            return self.net.head

        def forward(self, x):
            return self.net.head(self.net.stem(x).mean((2, 3)).view(-1, 16))

    monkeypatch.setattr(timm, "is_model", lambda name: True)
    monkeypatch.setattr(timm, "create_model", lambda name, num_classes: Counting())
    with pytest.raises(InvalidInput, match=r"timm:counting does not run at 0\.5x: .*16"):
        architecture("counting").network(0.5, classes=None)


# ------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mobilenetv3_smal_100", "did you mean timm:mobilenetv3_small_100 or timm:"),
        ("0", "timm.list_models"),
        ("resnet18.none", r"known: .*a1_in1k"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name, hint):
    with pytest.raises(UsageProblem, match=r"timm .*has no") as raised:
        architecture(name)
    assert raised.value.exit_code == 2
    assert re.search(hint, raised.value.hint)


def test_names_of_the_family_are_in_the_table_without_being_looked_up():
    assert f"timm:{SMALL}" in ENCODERS
    assert "timm:" not in ENCODERS
    assert "timm" not in ENCODERS
    assert ENCODERS[f"timm:{SMALL}"].extra == "timm"
    assert "timm:NAME" in ENCODERS.listed()
    assert not any(name.startswith("timm") for name in ENCODERS)
    assert architecture(SMALL) is architecture(SMALL)


@pytest.mark.parametrize(
    ("name", "twin"),
    [("resnet18", "resnet18"), ("mobilenetv3_small_100", "mobilenet_v3_small")],
)
def test_a_net_has_the_facts_of_its_twin(name, twin):
    facts = encoder_facts(f"timm:{name}")
    assert facts["sliced"] == "yes"
    assert {key: facts[key] for key in ("features_1x", "macs_1x_224_m")} == {
        key: ENCODERS[twin].facts[key] for key in ("features_1x", "macs_1x_224_m")
    }


def test_the_facts_say_what_hinders_slicing():
    facts = encoder_facts("timm:test_vit")
    assert facts["sliced"].startswith("no: timm:test_vit cannot be sliced, at blocks.0")


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.delitem(sys.modules, "edgessl.encoders.timm_nets", raising=False)
    with pytest.raises(MissingExtra, match=f"encoder 'timm:{SMALL}' needs the package") as raised:
        architecture(SMALL)
    assert raised.value.hint == "pip install 'edgessl[timm]'"


def test_a_classifier_that_is_no_linear_layer_is_refused():
    with pytest.raises(InvalidInput, match="ends in a Conv2d"):
        architecture("dla34")


# ----------------------------------------------------------------------------------- weights


def pretrained(name, folder):
    """A file as the hub has it: timm's own state dict, far from the initial values."""
    torch.manual_seed(0)
    net = timm.create_model(name)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.3)
                layer.running_var.uniform_(0.5, 1.5)
                layer.weight.uniform_(0.5, 1.5)
    path = folder / "model.safetensors"
    save_file(net.state_dict(), path)
    return net.eval(), path


def answer_of_hub(monkeypatch, answer):
    asked = []

    def download(repository, file, *, local_files_only, token):
        asked.append((repository, file, local_files_only))
        return answer(local_files_only)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    return asked


def test_the_1x_slim_pass_is_the_pretrained_net(tmp_path, monkeypatch):
    theirs, path = pretrained(SMALL, tmp_path)
    asked = answer_of_hub(monkeypatch, lambda local: path)
    sliced = build_sliced(architecture(SMALL), NetSpec(f"timm:{SMALL}", 1.5, (1.0,)))
    for where in ("imagenet", str(path)):
        fill_sliced(sliced, stock_weights(architecture(SMALL), where))
        with torch.no_grad():
            expected = theirs.forward_head(theirs.forward_features(images()), pre_logits=True)
            found = sliced.eval()(images(), width="1x")
        assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())
    tag = timm.get_pretrained_cfg(SMALL).tag
    assert asked == [(f"timm/{SMALL}.{tag}", "model.safetensors", True)]  # its cache comes first


def test_without_a_network_the_file_to_bring_is_named(monkeypatch):
    def fail(local):
        raise OSError("no network in tests" if not local else "not in the cache")

    asked = answer_of_hub(monkeypatch, fail)
    for encoder in (architecture(SMALL), ENCODERS.load("mobilenetv4_conv_small")):
        with pytest.raises(FileInvalid, match="not be fetched: no network in tests") as raised:
            stock_weights(encoder, "imagenet")
        assert "--weights PATH/model.safetensors" in raised.value.hint
        assert "huggingface.co/timm/" in raised.value.hint
    assert [local for *_, local in asked] == [True, False] * 2


def test_weights_for_other_pixels_and_none_are_refused():
    with pytest.raises(UsageProblem, match=r"expect pixels of mean 0\.5/0\.5/0\.5"):
        stock_weights(architecture("test_resnet"), "imagenet")
    with pytest.raises(UsageProblem, match="no ImageNet weights for timm:mnasnet_050"):
        stock_weights(architecture("mnasnet_050"), "imagenet")


def test_another_net_is_refused_and_the_package_named(tmp_path):
    _, path = pretrained(SMALL, tmp_path)
    with pytest.raises(FileInvalid, match="does not hold the stock timm:test_byobnet") as raised:
        stock_weights(architecture("test_byobnet"), str(path))
    assert "timm's test_byobnet;" in raised.value.hint
