"""Pretrained stock weights as a start: what fills what, and which files are refused."""

import hashlib
import pickle
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models._api import WeightsEnum

from edgessl.core.errors import FileInvalid, UsageProblem
from edgessl.encoders import ENCODERS
from edgessl.encoders.weights import fill, stock_weights
from edgessl.slimming.extract import NetSpec, build_sliced
from edgessl.slimming.start import fill_sliced


def architecture(name):
    return ENCODERS.load(name)


STOCK = tuple(name for name in ENCODERS if architecture(name).weights)
# ResNet-34 and -101 have the layers of the others, only more of them
KINDS = [
    pytest.param(name, marks=pytest.mark.slow) if name == "resnet50" else name
    for name in STOCK
    if name not in {"resnet34", "resnet101"}
]
SMALL = "mobilenet_v3_small"


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """An empty cache of torch hub and no network."""

    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(WeightsEnum, "get_state_dict", refuse)


def pretrained(name, seed=0, classes=10) -> nn.Module:
    """The stock class's own module with weights and statistics far from the initial ones."""
    # a pooled net takes the weights of the whole one
    code = architecture(name.removesuffix("_pooled")).stock_code(1.0, classes)
    torch.manual_seed(seed)
    net = eval(code, {"torchvision": torchvision, "timm": timm})
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                for tensor in (layer.weight, layer.running_var):
                    tensor.uniform_(0.5, 1.5)
                for tensor in (layer.bias, layer.running_mean):
                    tensor.normal_(0, 0.3)
    return net.eval()


def saved(name, folder: Path, suffix=".safetensors", **options) -> str:
    path = folder / f"{name}{suffix}"
    state = pretrained(name, **options).state_dict()
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return str(path)


def features(name, net, x):
    """Pooled features of a net with a classifier: what goes into it."""
    seen = []
    head = net.get_submodule(architecture(name).head)
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(x)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("bn", ["switch", "shared"])
def test_the_1x_slim_pass_is_the_stock_net(name, bn, tmp_path):
    stock = architecture(name)
    sliced = build_sliced(stock, NetSpec(name, 1.5, (1.0,), "stock", bn), seed=1)
    fresh = {n: t.clone() for n, t in sliced.host.state_dict().items()}
    tensors = stock_weights(stock, saved(name, tmp_path))
    fill_sliced(sliced, tensors)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = features(name, pretrained(name), x)
        found = sliced.eval()(x, width="1x")
    assert float((found - expected).abs().max()) < 1e-5 * max(1.0, float(expected.abs().max()))
    for tensor, now in sliced.host.state_dict().items():
        filled = tuple(slice(size) for size in tensors[tensor].shape)
        fresh[tensor][filled] = tensors[tensor]
        assert torch.equal(now, fresh[tensor]), tensor  # as initialised elsewhere


@pytest.mark.parametrize("name", KINDS)
def test_a_plain_net_takes_what_overlaps(name, tmp_path):
    stock = architecture(name)
    tensors = stock_weights(stock, saved(name, tmp_path))
    same = stock.network(1.0, classes=3)
    before = same.get_submodule(stock.head).weight.clone()
    fill(same, tensors)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(features(name, same.eval(), x), features(name, pretrained(name), x))
    assert torch.equal(same.get_submodule(stock.head).weight, before)
    narrow = stock.network(0.5, classes=3)
    fill(narrow, tensors)
    for tensor, now in narrow.state_dict().items():
        if not tensor.startswith(stock.head):
            assert torch.equal(now, tensors[tensor][tuple(slice(n) for n in now.shape)]), tensor


def test_a_stem_for_small_images_takes_the_centre_of_the_kernel(tmp_path):
    tensors = stock_weights(architecture("resnet18"), saved("resnet18", tmp_path))
    net = architecture("resnet18").network(1.0, classes=None, stem="small")
    fill(net, tensors)
    conv = net.get_submodule("conv1")
    assert isinstance(conv, nn.Conv2d)
    assert torch.equal(conv.weight, tensors["conv1.weight"][:, :, 2:5, 2:5])


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("classes", [1000, 7])
def test_files_with_any_number_of_classes_are_taken(tmp_path, suffix, classes):
    path = saved(SMALL, tmp_path, suffix, classes=classes)
    found = stock_weights(architecture(SMALL), path)
    expected = pretrained(SMALL, classes=classes).state_dict()
    head = architecture(SMALL).head
    assert set(found) == {n for n in expected if not n.startswith(f"{head}.")}
    assert all(torch.equal(t, expected[n]) for n, t in found.items())


def test_counters_that_old_files_lack_are_not_asked_for(tmp_path):
    state = pretrained(SMALL).state_dict()
    save_file(
        {n: t for n, t in state.items() if "num_batches" not in n}, tmp_path / "old.safetensors"
    )
    found = stock_weights(architecture(SMALL), str(tmp_path / "old.safetensors"))
    assert int(found["features.0.1.num_batches_tracked"]) == 0


def test_another_net_is_refused_and_the_first_difference_named(tmp_path):
    with pytest.raises(FileInvalid, match=r"does not hold the stock mobilenet_v2.*and \d+ more"):
        stock_weights(architecture("mobilenet_v2"), saved(SMALL, tmp_path))
    wide = architecture(SMALL).network(1.5, classes=10)
    save_file(wide.state_dict(), tmp_path / "wide.safetensors")
    with pytest.raises(FileInvalid, match=r"features\.0\.0\.weight has shape \(24, 3, 3, 3\)"):
        stock_weights(architecture(SMALL), str(tmp_path / "wide.safetensors"))


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("EXECUTED"),))


def test_a_file_that_holds_more_than_tensors_is_refused_and_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = pretrained(SMALL).state_dict()
    torch.save(state | {"bomb": Bomb()}, "bomb.pth")
    Path("plain.pth").write_bytes(pickle.dumps({"bomb": Bomb()}, protocol=2))
    for name in ("bomb.pth", "plain.pth"):
        with pytest.raises(FileInvalid, match="more than tensors"):
            stock_weights(architecture(SMALL), name)
    torch.save({"epoch": 3, "state_dict": state}, "checkpoint.pth")
    with pytest.raises(FileInvalid, match="'epoch' is a int"):
        stock_weights(architecture(SMALL), "checkpoint.pth")
    assert not Path("EXECUTED").exists()


@pytest.mark.parametrize("keep", [0, 100, -1000])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = Path(saved(SMALL, tmp_path, ".pth"))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FileInvalid):
        stock_weights(architecture(SMALL), str(path))
    with pytest.raises(FileInvalid, match="no such file"):
        stock_weights(architecture(SMALL), str(tmp_path / "none.pth"))


def test_a_truncated_or_damaged_file_of_the_old_form_is_refused(tmp_path):
    path = tmp_path / "old.pth"
    state = {"a.weight": torch.ones(3, 3), "b": torch.zeros(2)}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 3):
        path.write_bytes(whole[:length])
        with pytest.raises(FileInvalid, match=r"PyTorch file|damaged or holds|is empty"):
            stock_weights(architecture(SMALL), str(path))
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + b"\xb3" + whole[position + 1 :])
        with pytest.raises(FileInvalid):  # where it can be read, it is another net
            stock_weights(architecture(SMALL), str(path))


def test_tensors_of_another_kind_are_refused(tmp_path):
    state, name = pretrained(SMALL).state_dict(), "features.0.0.weight"
    for other in (
        state[name].to_sparse(),
        state[name].to("meta"),
        torch.quantize_per_tensor(state[name], 0.1, 0, torch.qint8),
    ):
        torch.save(state | {name: other}, tmp_path / "other.pth")
        with pytest.raises(FileInvalid, match=r"'features\.0\.0\.weight' is a sparse, quantized"):
            stock_weights(architecture(SMALL), str(tmp_path / "other.pth"))


@pytest.mark.parametrize(
    "body",
    ["<!DOCTYPE html>\n<html>404</html>", "version https://git-lfs.github.com/spec/v1\noid x"],
)
def test_what_was_saved_in_place_of_weights_is_quoted(tmp_path, body):
    path = tmp_path / "weights.pth"
    path.write_text(body)
    with pytest.raises(FileInvalid, match=r"is not a PyTorch file \(it begins with") as raised:
        stock_weights(architecture(SMALL), str(path))
    assert body.split()[1] in raised.value.message
    assert "any code" not in raised.value.message


def test_without_a_network_the_file_to_bring_is_named():
    with pytest.raises(FileInvalid, match=r"\(mobilenet_v3_small-[0-9a-f]{8}\.pth\)") as raised:
        stock_weights(architecture(SMALL), "imagenet")
    assert "--weights PATH/mobilenet_v3_small-" in raised.value.hint
    with pytest.raises(UsageProblem, match="no ImageNet weights for mobilenet_v1"):
        stock_weights(architecture("mobilenet_v1"), "imagenet")


def cache(tmp_path, monkeypatch, body_of_name: bytes) -> Path:
    """Put a stock file into torch hub's cache, under a name that carries the hash given."""
    path = Path(saved(SMALL, tmp_path, ".pth"))
    name = f"{SMALL}-{hashlib.sha256(body_of_name or path.read_bytes()).hexdigest()[:8]}.pth"
    monkeypatch.setattr(WeightsEnum, "url", f"https://download.invalid/models/{name}")
    place = tmp_path / "hub" / "checkpoints"
    place.mkdir(parents=True)
    return path.rename(place / name)


def test_the_cache_of_torch_hub_is_looked_at_first(tmp_path, monkeypatch):
    cache(tmp_path, monkeypatch, b"")
    found = stock_weights(architecture(SMALL), "imagenet")
    assert torch.equal(
        found["features.0.0.weight"], pretrained(SMALL).state_dict()["features.0.0.weight"]
    )


def test_a_damaged_cache_is_named(tmp_path, monkeypatch):
    path = cache(tmp_path, monkeypatch, b"another file")
    with pytest.raises(FileInvalid, match="is damaged") as raised:
        stock_weights(architecture(SMALL), "imagenet")
    assert str(path) in raised.value.message


def test_what_is_fetched_is_used(monkeypatch):
    state, asked = pretrained(SMALL).state_dict(), {}

    def fetch(self, **options):
        asked.update(options, url=self.url)
        return state

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fetch)
    found = stock_weights(architecture(SMALL), "imagenet")
    assert torch.equal(found["features.0.0.weight"], state["features.0.0.weight"])
    assert asked["check_hash"]
    assert asked["weights_only"]
    assert "mobilenet_v3_small" in asked["url"]


@pytest.mark.parametrize("name", [n for n in STOCK if "timm" not in architecture(n).weights])
def test_published_weights_are_of_that_net_and_carry_their_hash(name):
    weights = torchvision.models.get_weight(architecture(name).weights)
    assert weights.meta["num_params"] == sum(
        p.numel() for p in pretrained(name, classes=1000).parameters()
    )
    file_name = weights.url.rpartition("/")[2]
    assert len(file_name.rpartition("-")[2].removesuffix(".pth")) == 8
