"""A tiny net on a tiny pack, for benches of fractions of a second."""

import numpy as np

from edgessl.core.artifact import Artifact, InputSpec
from edgessl.core.images import image_sha256, to_model_input
from edgessl.devices.bench import bench_artifact
from edgessl.devices.choice import Asked
from edgessl.devices.protocol import Preset

SPEC = InputSpec.square(8)
CLASSES, N = 7, 90
MINI = Preset("mini", 3, 0.02, 40, 0.1, ("p50",), settle_window_s=0.02, warmup_cap_s=0.2)
TIMING = {"UNSTABLE", "BUSY", "VALID"}  # what a loaded test machine decides

# an ONNX Runtime that does nothing; tests add what it does
FAKE_ONNXRUNTIME = """
import os, time
import numpy as np
class SessionOptions:
    intra_op_num_threads = 1
class Node:
    name, shape, type = "input", [1, 3, 8, 8], "tensor(float)"
class InferenceSession:
    def __init__(self, path, options, **choices): pass
    def get_inputs(self): return [Node]
    def get_providers(self): return ["CPUExecutionProvider"]
    def get_session_options(self): return SessionOptions
    def run(self, names, feeds): return [np.ones((1, 7), np.float32)]
"""


def write_onnx(folder):
    """conv - relu - mean - matmul: 8 x 8 images to 7 logits; return the file and its weights."""
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((6, 3, 3, 3)).astype(np.float32),
        "fc": rng.standard_normal((6, CLASSES)).astype(np.float32),
        "axes": np.array([2, 3]),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "w"], ["a"], name="conv", pads=[1] * 4),
            helper.make_node("Relu", ["a"], ["b"], name="relu"),
            helper.make_node("ReduceMean", ["b", "axes"], ["c"], name="mean", keepdims=0),
            helper.make_node("MatMul", ["c", "fc"], ["logits"], name="fc"),
        ],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = helper.make_opsetid("", 18)
    path = folder / "model.onnx"
    save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path, weights


def images_and_logits(weights):
    """Random pixels and their logits by an independent implementation: a conv as nine shifts."""
    images = np.random.default_rng(1).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    images[5] = images[4]  # a duplicate: it must not count as a different input
    x = np.pad(to_model_input(images, SPEC), ((0, 0), (0, 0), (1, 1), (1, 1)))
    conv = sum(
        np.einsum("nchw,oc->nohw", x[:, :, i : i + 8, j : j + 8], weights["w"][:, :, i, j])
        for i in range(3)
        for j in range(3)
    )
    return images, np.maximum(conv, 0).mean((2, 3)) @ weights["fc"]


def write_stage(folder, sources, form, images, logits, spec=SPEC, **facts):
    """Write an export stage folder and a pack whose every third label is wrong."""
    folder.mkdir()
    for source in sources:
        (folder / source.name).write_bytes(source.read_bytes())
    artifact = Artifact.sealed(
        folder,
        [source.name for source in sources],
        artifact_kind="export",
        format=form,
        input=spec,
        labels=tuple("abcdefg"),
        facts=facts,
    )
    np.savez(
        folder / "golden.npz",
        images=images[:16], reference=logits[:16], expected=logits[:16], seal=artifact.seal,
    )  # fmt: skip
    labels = logits.argmax(1).astype(np.int64)
    labels[::3] = (labels[::3] + 1) % CLASSES
    names = np.array([image_sha256(image) for image in images])
    pack = folder.with_name(f"{folder.name}-pack.npz")
    np.savez(pack, images=images, labels=labels, sha256=names, reference=logits)
    return folder, pack


def change(pack, **arrays):
    """Replace arrays of an archive."""
    with np.load(pack) as old:
        kept = dict(old)
    np.savez(pack, **(kept | arrays))


def bench(device, stage, out, *, progress=None, **choices):
    """Bench a stage folder with its pack; the preset is MINI if none is chosen."""
    asked = Asked(**({"preset": MINI} | choices))
    return bench_artifact(device, *stage, out, asked=asked, progress=progress)


def leftovers(device):
    """Return what is in the work folder beside what stays until the shell is closed."""
    from pathlib import Path

    kept = ("agent-", "pack-", ".")  # the hidden ones are the keeper's
    return [p.name for p in Path(device.shell.workdir).iterdir() if not p.name.startswith(kept)]


def plan_for(stage, **changes):
    """Return a plan as a bench would make it, for a conversation without one."""
    artifact = Artifact.load(stage[0])
    plan = {
        "proto": 2, "runtime": "onnxruntime", "provider": "CPUExecutionProvider",
        "precision": None, "threads": 1, "fps": None, "idle_s": 0.0, "profile": False,
        "probes": [], "meter": None, "seal": artifact.seal,
        "input": artifact.input.model_dump(mode="json") | {"shape": artifact.input.shape},
        "output": artifact.output.model_dump(mode="json"), "tolerance": 1e-3,
        "rotation": list(range(8)), "has_reference": True,
    }  # fmt: skip
    return plan | changes


def measure(device, stage, preset=MINI, **changes):
    """Run a plan on a device and return the events of its processes."""
    from edgessl.devices.conversation import Sources

    folder, pack = stage
    sources = Sources(folder, Artifact.load(folder), folder / "golden.npz", pack)
    return device.measure(plan_for(stage, **changes), sources, preset, lambda line: None)


def gone(pid):
    """Whether a process has ended, reaped or not."""
    from pathlib import Path

    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True
