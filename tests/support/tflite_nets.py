"""Nets for the LiteRT tests; run as a program, it writes their files in a process of its own.

python tflite_nets.py WEIGHTS CALIBRATION FOLDER [all]
"""

import json
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np

from edgessl.core.artifact import InputSpec
from edgessl.core.images import to_model_input

SIDE, CLASSES = 32, 10
SPEC = InputSpec.square(SIDE)
# as many characters that mean something in a regular expression as a module's name can hold
NAMES = ["c", "c2", "c+", "(c)", "c|c2", "[c]$"]
NETWORK = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}


def small_net():
    """Return the parts of a MobileNetV3: depthwise, squeeze-and-excitation, a residual."""
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

    blocks = [
        InvertedResidualConfig(16, 3, 16, 16, True, "RE", 2, 1, 1.0),
        InvertedResidualConfig(16, 3, 48, 24, False, "RE", 2, 1, 1.0),
        InvertedResidualConfig(24, 5, 64, 24, True, "HS", 1, 1, 1.0),
    ]
    return MobileNetV3(blocks, last_channel=64, num_classes=CLASSES)


def named_net():
    """Return convolutions whose names are traps for regular expressions, two of them equal."""
    import torch

    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3 if name == "c" else 4, 4, 3) for name in NAMES]
    layers[3].load_state_dict(layers[2].state_dict())
    parts = OrderedDict(zip(NAMES, layers, strict=True))
    return torch.nn.Sequential(
        torch.nn.Sequential(parts), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )


def main(weights: str, calibration: str, base: str, *options: str) -> None:
    """Write ``float`` and ``int8``, and with ``all`` the other forms; note who asks the network."""
    asked = []
    sys.addaudithook(
        lambda event, values: asked.append((event, str(values))) if event in NETWORK else None
    )
    import torch

    from edgessl.exporters.base import Form, Scheme
    from edgessl.exporters.to_tflite import TfliteExporter
    from edgessl.stages.conversion import as_json

    net, exporter = small_net(), TfliteExporter()
    net.load_state_dict(torch.load(weights, weights_only=True))
    net.to(memory_format=torch.channels_last).train()  # exporters must not depend on either
    written = {}

    def folder(name: str) -> Path:
        (Path(base) / name).mkdir(parents=True)
        return Path(base) / name

    plain = folder("float")
    written["float"] = exporter.write(net, SPEC, plain, Form())
    inputs = to_model_input(np.load(calibration), written["float"].input)
    written["int8"] = exporter.quantize(
        plain, written["float"], folder("int8"), Scheme("int8"), inputs
    )
    exporter.describe(Path(base) / "int8", "{}")
    if options == ("all",):
        written["pixels"] = exporter.write(net, SPEC, folder("pixels"), Form(embed=True))
        written["named"] = exporter.write(named_net(), SPEC, folder("named"), Form())
        whole = Form(embed=True, raw=(60, 50))
        written["whole"] = exporter.write(named_net(), SPEC, folder("whole"), whole)
    assert net.training, "the caller's net was changed"
    for name in written:
        files = [path.name for path in (Path(base) / name).iterdir()]
        assert files == written[name].files == ["model.tflite"]
    values = {name: as_json(given) for name, given in written.items()}
    (Path(base) / "written.json").write_text(json.dumps(values))
    assert not asked, asked


if __name__ == "__main__":
    main(*sys.argv[1:])
