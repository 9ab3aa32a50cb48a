"""What may teach: every form of pretrain.teacher, what is refused, and what a student records."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from edgessl import api
from edgessl.core import files
from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid, FileInvalid, RecipeInvalid
from edgessl.encoders import ENCODERS
from edgessl.encoders.loading import load_model
from edgessl.methods.projector_layers import layers_of, projector_of
from edgessl.methods.projectors import projector
from edgessl.stages import teachers
from edgessl.stages.networks import load_host
from edgessl.stages.recipes import validated
from edgessl.stages.teachers import load_teacher, teacher_identity

QUIET = Reporter(quiet=True)
SHORT = "mobilenet_v1_short"
SMALL = {
    "encoder.name": SHORT, "encoder.width": "0.25x", "data.imgsz": 16, "pretrain.batch": 256,
    "pretrain.epochs": 1, "pretrain.recalibrate_batches": 1, "pretrain.monitor.collapse": "off",
}  # fmt: skip
TEACHER = SMALL | {"pretrain.method": "simclr", "pretrain.options": {"projector": [16, 12]}}
STUDENT = SMALL | {"pretrain.method": "seed", "pretrain.options": {"projector": [16, 9]}}
TUNE = {
    "labels.per_class": 2, "labels.draws": 1, "finetune.epochs": 1,
    "finetune.learning_rates": [1e-3], "finetune.scratch": False,
}  # fmt: skip


def pretrain(out, settings, **changes):
    return api.pretrain(settings=settings | changes, out=out, resume=out.exists(), reporter=QUIET)


def recipe(teacher=None, method="seed", **data):
    return validated({
        "encoder": {"name": SHORT, "width": "0.25x", "stem": "small"},
        "data": {"imgsz": 16} | data, "pretrain": {"method": method, "teacher": teacher},
    })  # fmt: skip


def document(folder):
    return json.loads((folder / "encoder.json").read_text())


def same_weights(a, b):
    b = dict(b)
    return all(torch.equal(tensor, b[name]) for name, tensor in a.items())


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A teacher of our own: pretrained, fine-tuned and extracted."""
    run = tmp_path_factory.mktemp("teachers") / "teacher"
    pretrain(run, TEACHER)
    api.finetune(run, settings=TUNE, out=run.parent / "tuned", reporter=QUIET)
    api.extract(run.parent / "tuned", out=run.parent / "extracted", reporter=QUIET)
    return run


@pytest.fixture
def student(own, tmp_path):
    """A student whose pretraining is finished, and its teacher, both to be spoiled."""
    teacher, out = tmp_path / "teacher", tmp_path / "student"
    shutil.copytree(own, teacher)
    pretrain(out, STUDENT, **{"pretrain.teacher": str(teacher)})
    return teacher, out


def other_teacher(teacher):
    """Put a teacher of other weights and seal in the place of another."""
    shutil.rmtree(teacher)
    pretrain(teacher, TEACHER, **{"pretrain.learning_rate": 1e-3})


@pytest.mark.parametrize("place", ["", "pretrain", "pretrain/encoder.safetensors"])
def test_an_own_teacher_comes_with_the_projector_of_its_pretraining(own, place):
    found = load_teacher(recipe(str(own / place)))
    host = load_host(own / "pretrain").sliced.host.state_dict()
    assert same_weights(host, found.network.state_dict())
    saved = load_file(own / "pretrain/projector.safetensors")
    assert same_weights(saved, found.projector.state_dict())
    assert (found.features, found.dimensions) == (128, 12)
    assert not found.network.training
    assert not found.projector.training


def test_a_tuned_or_extracted_net_teaches_its_features(own):
    tuned, extracted = (load_teacher(recipe(str(own.parent / n))) for n in ("tuned", "extracted"))
    for found in (tuned, extracted):
        assert found.projector is None
        assert (found.features, found.dimensions) == (128, 128)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(tuned.network(x), extracted.network(x))


def test_the_statistics_of_the_kept_projector_are_estimated_anew(own):
    """On what the recalibrated encoder makes of images without augmentation: one batch here."""
    norm = load_teacher(recipe(str(own))).projector[1]
    assert isinstance(norm, nn.BatchNorm1d)
    assert int(norm.num_batches_tracked) == SMALL["pretrain.recalibrate_batches"]


def test_stock_nets_by_file_and_by_name(tmp_path, monkeypatch):
    stock = ENCODERS.load(SHORT).network(1.0, classes=3, seed=5)
    path = tmp_path / "net.safetensors"
    save_file(stock.state_dict(), path)
    found = load_teacher(recipe(f"{SHORT}={path}"))
    assert same_weights(found.network.state_dict(), stock.state_dict())  # without the classifier
    assert found.projector is None
    torch.save(stock.state_dict(), tmp_path / "net.pth")
    pickled = load_teacher(recipe(f"{SHORT}={tmp_path}/net.pth"))
    assert same_weights(pickled.network.state_dict(), stock.state_dict())
    asked = []
    monkeypatch.setattr(
        teachers, "stock_weights", lambda a, where: asked.append((a.name, where)) or {}
    )
    load_teacher(recipe("resnet18=imagenet"))
    assert asked == [("resnet18", "imagenet")]


def test_a_teacher_that_trains_along_begins_at_random():
    method = "rekd-style"
    found = load_teacher(recipe(f"{SHORT}@0.5x", method))
    assert found.features == 256
    assert same_weights(
        found.network.state_dict(),
        load_teacher(recipe(f"{SHORT}@0.5", method)).network.state_dict(),
    )
    # it keeps the stem of the student, and does not begin as its student
    student = ENCODERS.load(SHORT).network(0.25, classes=None, stem="small", seed=0)
    twin = load_teacher(recipe(f"{SHORT}@0.25x", method)).network
    assert [m.stride for m in twin.modules() if isinstance(m, nn.Conv2d)] == [
        m.stride for m in student.modules() if isinstance(m, nn.Conv2d)
    ]
    assert not same_weights(twin.state_dict(), student.state_dict())
    assert all(p.requires_grad for p in twin.parameters())


@pytest.mark.parametrize(
    ("teacher", "method", "message", "hint"),
    [
        (None, "seed", "from a trained teacher, and none is named", "--teacher runs/teacher"),
        (None, "rekd-style", "trains a teacher along, and none is named", "--teacher resnet18"),
        ("resnet18", "disco", "resnet18 names random weights", "--out runs/teacher"),
        ("resnet18", "simclr", "has no teacher", "seed"),
        ("runs/nosuch", "seed", "no folder here, and no encoder", "ARCH=FILE"),
        ("resnet19", "seed", "no folder here, and no encoder", "resnet18"),
        ("resnet18@2x-1x", "rekd-style", "'2x-1x' is not a single one", "resnet18@0.5x"),
        ("resnet18@", "rekd-style", "'' is not a single one", "resnet18@0.5x"),
        ("resnet18@0.5x=imagenet", "seed", "published for 1x", "resnet18=imagenet"),
        ("resnet18=", "seed", "names weights that there are none of", "resnet18=imagenet"),
    ],
)  # fmt: skip
def test_what_cannot_teach_is_refused_with_a_way_out(teacher, method, message, hint):
    with pytest.raises(RecipeInvalid, match=message) as caught:
        load_teacher(recipe(teacher, method))
    assert hint in caught.value.hint


def test_the_way_to_a_teacher_is_a_command_for_the_same_images():
    with pytest.raises(RecipeInvalid) as caught:
        load_teacher(recipe(unlabeled="my photos", test="tests", labels="labelled", imgsz=96))
    command = caught.value.hint.split(": ", 1)[1].partition("; then add: ")
    words = shlex.split(command[0])
    assert words[:6] == ["edgessl", "pretrain", "--method", "moco-v2", "--encoder", "resnet18"]
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert options["--unlabeled"] == "my photos"
    assert (options["--labels"], options["--test"], options["--imgsz"]) == (
        "labelled",
        "tests",
        "96",
    )
    assert "--set" not in options  # a small stem is for small images
    assert command[2] == f"--teacher {options['--out']}"


def test_folders_and_files_that_hold_no_teacher(own, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "loose.pth").write_bytes(b"x")
    for what, message in (("empty", "no checkpoint"), ("loose.pth", "does not say what it holds")):
        with pytest.raises(FileInvalid, match=message):
            load_teacher(recipe(str(tmp_path / what)))
    with pytest.raises(FileInvalid, match="no such file"):
        teacher_identity(recipe("resnet18=nosuch.pth"))


def test_an_altered_teacher_is_refused(own, tmp_path):
    folder = tmp_path / "teacher"
    shutil.copytree(own / "pretrain", folder)
    path = folder / "projector.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(FileInvalid, match=r"projector\.safetensors was changed or cut"):
        load_teacher(recipe(str(folder)))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([{"layer": "linear", "inputs": 128, "outputs": 11, "bias": True}], "does not fit"),
        ([{"layer": "linear", "inputs": 64, "outputs": 12, "bias": True}], "128 come in"),
        ([{"layer": "softmax", "inputs": 128}], "unknown layer 'softmax'"),
        ([{"layer": "linear", "inputs": 128, "outputs": 1e9, "bias": True}], "no number of feat"),
        ("linear", "garbles its projector"),
        ([7], "garbles its projector"),
    ],
)  # fmt: skip
def test_a_garbled_description_of_a_projector_is_refused(own, tmp_path, layers, message):
    folder = tmp_path / "teacher"
    shutil.copytree(own / "pretrain", folder)
    body = document(folder)
    body["facts"]["projector"] = layers
    (folder / "encoder.json").write_text(json.dumps(body))
    with pytest.raises(FileInvalid, match=message):
        load_teacher(recipe(str(folder)))


def test_a_projector_is_described_whole_and_built_again():
    made = nn.Sequential(*projector(6, (5, 4)), nn.BatchNorm1d(4, affine=False))
    layers = json.loads(json.dumps(layers_of(made)))
    again = projector_of(layers, 6)
    again.load_state_dict(made.state_dict())
    x = torch.randn(3, 6)
    assert torch.equal(made(x), again(x))
    with pytest.raises(ValueError, match="no GELU"):
        layers_of(nn.Sequential(nn.GELU()))


def test_images_that_a_teacher_cannot_take_are_refused(own, tmp_path, monkeypatch):
    def small(images):
        raise RuntimeError("Kernel size can't be greater than actual input size")

    broken = nn.Module()
    broken.forward = small
    monkeypatch.setattr(teachers, "_stock", lambda *_: broken)
    with pytest.raises(RecipeInvalid, match="cannot take images of 16 px: Kernel size"):
        load_teacher(recipe("resnet18=imagenet"))
    folder = tmp_path / "teacher"
    shutil.copytree(own / "pretrain", folder)
    body = document(folder)
    body["input"]["mean"] = [0.5, 0.5, 0.5]
    (folder / "encoder.json").write_text(json.dumps(body))
    with pytest.raises(RecipeInvalid, match=r"normalised with mean \(0\.5"):
        load_teacher(recipe(str(folder)))


def test_a_student_records_its_teacher(student):
    teacher, out = student
    facts, theirs = document(out / "pretrain")["facts"], document(teacher / "pretrain")
    assert facts["teacher"] == {
        "name": str(teacher), "architecture": SHORT, "width": "0.25x", "sha256": theirs["seal"],
        "trained": "simclr", "imgsz": 16,
    }  # fmt: skip
    outputs = [layer["outputs"] for layer in facts["projector"] if layer["layer"] == "linear"]
    assert outputs == [16, 12]  # its own hidden width, and the teacher's dimensions
    assert set(document(out / "pretrain")["files"]) == {
        "encoder.safetensors",
        "projector.safetensors",
    }
    state = load_file(next((out / "pretrain/last").glob("*.safetensors")))
    assert not any("teacher" in name for name in state)
    # a student can teach
    assert load_teacher(recipe(str(out))).dimensions == 12


def test_a_teacher_whose_training_collapsed_is_named_as_such(own, tmp_path, capsys):
    collapsed = tmp_path / "collapsed"
    shutil.copytree(own, collapsed)
    log = collapsed / "pretrain/monitor.jsonl"
    log.write_text(
        log.read_text() + json.dumps({"step": 9, "alarm": "the embedding is one"}) + "\n"
    )
    garbled = tmp_path / "garbled"
    shutil.copytree(own, garbled)
    (garbled / "pretrain/monitor.jsonl").write_text("5\n")
    for teacher, warned in ((collapsed, True), (own, False), (garbled, False)):
        out = tmp_path / f"taught-{teacher.name}"
        pretrain(out, STUDENT, **{"pretrain.teacher": str(teacher)})
        told = " ".join(capsys.readouterr().err.split())
        assert ("ended with an alarm: the embedding is one" in told) == warned


def test_a_finished_student_outlives_its_teacher_but_not_another_one(student):
    teacher, out = student
    seal = document(out / "pretrain")["seal"]
    wanted = {"pretrain.teacher": str(teacher)}
    shutil.move(teacher, teacher.with_name("elsewhere"))
    pretrain(out, STUDENT, **wanted)  # kept
    assert document(out / "pretrain")["seal"] == seal
    shutil.move(teacher.with_name("elsewhere"), teacher)
    other_teacher(teacher)
    with pytest.raises(FileInvalid, match="learned from another teacher"):
        pretrain(out, STUDENT, **wanted)
    assert document(out / "pretrain")["seal"] == seal


def test_an_unfinished_student_is_not_continued_by_another_teacher(student):
    teacher, out = student
    (out / "pretrain/stage.json").unlink()
    other_teacher(teacher)
    with pytest.raises(FileInvalid, match="teacher was"):
        pretrain(out, STUDENT, **{"pretrain.teacher": str(teacher)})


def test_a_teacher_that_knows_the_test_images_is_refused(own, tmp_path):
    """Another seed splits otherwise: what is tested on here was pretrained on there."""
    changes = {"pretrain.teacher": str(own), "seed": 3}
    with pytest.raises(DataInvalid, match="are also in the pretraining images of"):
        pretrain(tmp_path / "student", STUDENT, **changes)
    assert files.read_json(tmp_path / "student/run.json", "run")["stages"]["pretrain"]


def notes(run, stage):
    ledger = files.read_json(run / "ledger.json", "ledger")
    return [row["note"] for row in ledger["rows"] if row["stage"] == stage]


def test_a_student_says_who_taught_it_wherever_it_goes(student, tmp_path):
    teacher, out = student
    told = f"taught by {teacher} ({SHORT} 0.25x, simclr)"
    api.finetune(out, settings=TUNE, out=tmp_path / "tuned", reporter=QUIET)
    assert all(note.endswith(told) for note in notes(tmp_path / "tuned", "finetune"))
    extracted = api.extract(tmp_path / "tuned", out=tmp_path / "extracted", reporter=QUIET)
    _, artifact = load_model(Path(extracted.result["model"]))
    assert artifact.facts["teacher"] == document(out / "pretrain")["facts"]["teacher"]
    api.report([tmp_path / "extracted"])
    card = (tmp_path / "extracted/MODEL_CARD.md").read_text()
    assert f"pretrained with SEED, taught by {teacher} ({SHORT} 0.25x, SimCLR)" in card


def test_a_net_that_saw_all_labels_says_so_beside_its_figures(tmp_path):
    pretrain(tmp_path / "run", SMALL | {"pretrain.method": "supervised"})
    assert not (tmp_path / "run/pretrain/projector.safetensors").exists()
    only_knn = {"evaluate.protocols": ["knn"]}
    api.evaluate(tmp_path / "run", settings=only_knn, out=tmp_path / "seen", reporter=QUIET)
    pixels, net = notes(tmp_path / "seen", "evaluate")
    assert net == f"{pixels}; pretrained with all labels of the training split"
