"""Boards: how to reach them, what they can tell about themselves, how a figure is taken."""

from edgessl.core.registry import Entry, Table

DEVICES = Table(
    "device",
    {
        "local": Entry(
            "edgessl.devices.local:open_board",
            "this machine, in fresh processes",
            facts={"address": "none needed", "runtimes": "onnxruntime, openvino, litert"},
        ),
    },
)
