"""Lists of images, and datasets by name."""

from __future__ import annotations

import csv
import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgessl.core.artifact import InputSpec
from edgessl.core.errors import DataInvalid, EdgeSSLError, UsageProblem
from edgessl.data import SOURCES, fashion_mnist, splits_of
from edgessl.data.decode import prepare
from edgessl.data.sources import open_source
from edgessl.data.torchvision_sets import download

SPEC = InputSpec(height=8, width=8, resize=8)
NAMES = ["a, b.png", 'say "hi".png', "fox-🦊.png", "two\nlines.png", " lead.png", "plain.png"]


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "pics").mkdir()
    for i, name in enumerate(NAMES):
        Image.new("RGB", (9, 9), (40 * i, 0, 0)).save(tmp_path / "pics" / name)
    return tmp_path


def test_a_csv_list_reads_what_a_csv_writer_wrote(pictures):
    with (pictures / "list.csv").open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream)
        writer.writerow(["label", "path", "camera"])
        for i, name in enumerate(NAMES):
            writer.writerow(["bc"[i % 2] + " ", f"pics/{name}", f"cam {i // 3}"])
    found = open_source(str(pictures / "list.csv"))
    assert found.items == tuple(f"pics/{name}" for name in NAMES)
    assert found.class_names == ("b", "c")
    assert found.labels.tolist() == [0, 1] * 3
    assert found.columns == {"camera": ("cam 0",) * 3 + ("cam 1",) * 3}
    prepared = prepare(found, None, SPEC)
    assert prepared.images[:, 4, 4, 0].tolist() == [0, 40, 80, 120, 160, 200]


def test_a_txt_list_has_paths_tabs_and_comments(pictures):
    Image.new("RGB", (9, 9)).save(pictures / "#1.png")
    Image.new("RGB", (9, 9)).save(pictures / "absolute.jpg")
    lines = ["# a comment", "", "pics/a, b.png\tcat", "./#1.png\tdog ", "pics/ lead.png\tdog"]
    lines += [f"{pictures}/absolute.jpg\tcat", "gone.png\tcat", "pics\tdog", "empty.png\tdog"]
    (pictures / "empty.png").touch()
    (pictures / "list.txt").write_bytes("\r\n".join(lines).encode())
    found = open_source(str(pictures / "list.txt"))
    assert found.items == (
        "pics/a, b.png", "./#1.png", "pics/ lead.png", f"{pictures}/absolute.jpg",
    )  # fmt: skip
    assert [found.class_names[c] for c in found.labels] == ["cat", "dog", "dog", "cat"]
    assert {s.item: s.reason for s in found.skipped} == {
        "gone.png": "there is no such file",
        "pics": "it is a folder",
        "empty.png": "the file is empty",
    }
    (pictures / "bare.txt").write_text("pics/plain.png\npics/a, b.png\tcat\n")
    with pytest.raises(DataInvalid, match=r"1 of its 2 lines .*'pics/plain.png'"):
        open_source(str(pictures / "bare.txt")).require_labels()
    with open(pictures / "latin.txt", "wb") as stream:
        stream.write(b"caf\xe9.png\n")
    with open(bytes(pictures) + b"/caf\xe9.png", "wb") as stream:
        Image.new("RGB", (9, 9), (0, 0, 255)).save(stream, format="PNG")
    latin = open_source(str(pictures / "latin.txt"))
    assert latin.items == ("caf\\xe9.png",)
    assert latin.load(0)[0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("file,label\na.png,x\n", "lacks the column 'path'; it has 'file', 'label'"),
        ("path,label,label\n", "names 'label' twice"),
        ("", "it has nothing"),
        ("path,label\na.png\n", "line 2: 1 fields, the header has 2"),
        ("path,label\na, b.png,x\n", "line 2: 3 fields"),
        ("path,label\n,x\n", "line 2: the path is empty"),
        ('path,label\n"a.png,x\n', "not a valid .csv file"),
        ("path\nnowhere.png\n", "'nowhere.png': there is no such file"),
        ("path\n", "no line names one"),
        ("path\na\0b.png\n", r"a\\x00b.png.: there is no such file"),
    ],
)
def test_a_broken_csv_list_says_where(tmp_path, text, problem):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataInvalid, match=problem):
        open_source(str(tmp_path / "list.csv"))


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


def test_fashion_mnist_in_debians_and_in_torchvisions_place(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("EDGESSL_DATA", str(tmp_path / "data"))
    with pytest.raises(DataInvalid, match="'fashion-mnist' is not in") as caught:
        open_source("fashion-mnist")
    assert "edgessl data prepare fashion-mnist --download" in caught.value.hint
    for folder, grey in ((tmp_path / "data/FashionMNIST/raw", 7), (tmp_path / "debian", 9)):
        folder.mkdir(parents=True)
        for kind, n in (("train", 3), ("t10k", 2)):
            pixels = np.full((n, 28, 28), grey)
            (folder / f"{kind}-images-idx3-ubyte.gz").write_bytes(idx(pixels))
            (folder / f"{kind}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(n) + 7))
        train, test = open_source("fashion-mnist"), open_source("fashion-mnist:test")
        assert (len(train), len(test)) == (3, 2)
        assert [train.class_names[c] for c in train.labels] == ["Sneaker", "Bag", "Ankle boot"]
        assert len(test.class_names) == 10
        assert train.load(0).max() == grey


def test_every_dataset_has_its_splits_and_says_how_to_get_it(tmp_path, monkeypatch):
    pytest.importorskip("torchvision", reason="knows the datasets")
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("EDGESSL_DATA", str(tmp_path))
    for name in SOURCES:
        with pytest.raises(DataInvalid, match="has no split 'tset'"):
            open_source(f"{name}:tset")
        if name == "digits":
            continue
        for spec in (name, *(f"{name}:{split}" for split in splits_of(name))):
            with pytest.raises(DataInvalid, match=f"'{name}' is not in {tmp_path}") as caught:
                open_source(spec)
            fetch = f"edgessl data prepare {name} --download"
            assert (fetch in caught.value.hint) == SOURCES[name].facts["download"]
        if not SOURCES[name].facts["download"]:
            with pytest.raises(UsageProblem, match="cannot be downloaded") as refused:
                download(name, print)
            assert str(tmp_path) in refused.value.hint


def test_aircraft_and_cars_as_they_lie_on_disk(tmp_path, monkeypatch):
    pytest.importorskip("torchvision", reason="reads the lists")
    savemat = pytest.importorskip("scipy.io", reason="writes the lists of the cars").savemat
    monkeypatch.setenv("EDGESSL_DATA", str(tmp_path))
    data = tmp_path / "fgvc-aircraft-2013b/data"
    (data / "images").mkdir(parents=True)
    (data / "variants.txt").write_text("707-320\nA 300\n")
    (data / "images_variant_test.txt").write_text("0034309 A 300\n0034958 707-320\n")
    for i, number in enumerate(("0034309", "0034958")):
        Image.new("RGB", (12, 10), (0, 100 * i, 0)).save(data / f"images/{number}.jpg")
    aircraft = open_source("aircraft:test")
    assert aircraft.items == ("data/images/0034309.jpg", "data/images/0034958.jpg")
    assert [aircraft.class_names[c] for c in aircraft.labels] == ["A 300", "707-320"]
    assert aircraft.load(1).shape == (10, 12, 3)
    with pytest.raises(DataInvalid, match="as it should be"):
        open_source("aircraft:train")

    cars = tmp_path / "stanford_cars"
    (cars / "devkit").mkdir(parents=True)
    (cars / "cars_train").mkdir()
    kind = [("fname", object), ("class", np.uint8)]
    rows = np.array([("1.jpg", 2), ("2.jpg", 1)], dtype=kind)
    savemat(cars / "devkit/cars_train_annos.mat", {"annotations": rows})
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], object)
    savemat(cars / "devkit/cars_meta.mat", {"class_names": names})
    Image.new("L", (5, 4)).save(cars / "cars_train/1.jpg")
    (cars / "cars_train/2.jpg").write_bytes(b"torn")
    found = open_source("cars")
    assert [found.class_names[c] for c in found.labels] == [names[1], names[0]]
    prepared = prepare(found, None, SPEC)
    assert prepared.items == ("cars_train/1.jpg",)
    assert [s.item for s in prepared.skipped] == ["cars_train/2.jpg"]


def test_imagenet_as_it_lies_on_disk(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="reads the names of the classes")
    pytest.importorskip("torchvision", reason="reads the folders")
    monkeypatch.setenv("EDGESSL_DATA", str(tmp_path))
    root = tmp_path / "imagenet"
    words = {"n01440764": ("tench", "Tinca tinca"), "n02012849": ("crane",), "n9": ("none",)}
    for wnid in ("n02012849", "n01440764"):
        (root / "val" / wnid).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(root / "val" / wnid / "1.JPEG")
    torch.save((words, ["n01440764"]), root / "meta.bin")
    found = open_source("imagenet:val")
    assert found.class_names == ("n01440764 tench", "n02012849 crane")
    assert found.items == ("val/n01440764/1.JPEG", "val/n02012849/1.JPEG")
    with pytest.raises(DataInvalid, match="as it should be"):
        open_source("imagenet")


def test_files_of_cifar_with_another_sum_are_never_unpickled(tmp_path, monkeypatch):
    pytest.importorskip("torchvision", reason="checks the sums")
    monkeypatch.setenv("EDGESSL_DATA", str(tmp_path))

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (folder / name).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataInvalid, match="not found or corrupted") as caught:
        open_source("cifar10:test")
    assert f"remove {folder}" in caught.value.hint
    assert not (tmp_path / "pwned").exists()


def test_a_download_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets", reason="would download")
    monkeypatch.setenv("EDGESSL_DATA", str(tmp_path))

    def torn(root, download):
        assert download
        (Path(root) / "cifar-10-batches-py").mkdir()
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(datasets, "CIFAR10", torn)
    with pytest.raises(EdgeSSLError, match=r"could not be downloaded: .*reset by peer"):
        download("cifar10", print)
    assert list(tmp_path.iterdir()) == []

    def whole(root, download):
        (Path(root) / "cifar-10-batches-py").mkdir()
        (Path(root) / "cifar-10-python.tar.gz").touch()

    monkeypatch.setattr(datasets, "CIFAR10", whole)
    assert download("cifar10", print).name == "cifar-10-batches-py"
    assert [p.name for p in tmp_path.iterdir()] == ["cifar-10-batches-py"]
