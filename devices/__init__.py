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
        "ssh": Entry(
            "edgessl.devices.ssh:open_board",
            "any Linux board with Python 3.8, over SSH",
            facts={"address": "ssh://user@board", "runtimes": "onnxruntime, openvino, litert"},
        ),
        "rpi": Entry(
            "edgessl.devices.raspberry_pi:open_board",
            "Raspberry Pi: supply, heat and clock by its firmware; power of a Pi 5",
            facts={"address": "ssh://user@board", "runtimes": "onnxruntime, openvino, litert"},
        ),
        "jetson": Entry(
            "edgessl.devices.jetson:open_board",
            "NVIDIA Jetson: GPU through TensorRT and CUDA, power mode, power rails",
            facts={"address": "ssh://user@board", "runtimes": "tensorrt, onnxruntime, litert"},
        ),
        "android": Entry(
            "edgessl.devices.android:open_board",
            "Android phone over adb, with a Python of its own (experimental)",
            extra="android",
            facts={"address": "adb or adb:serial", "runtimes": "litert, onnxruntime"},
        ),
        "browser": Entry(
            "edgessl.devices.browser.device:open_board",
            "a browser, of a phone or of this machine: a page runs the file (WebAssembly)",
            extra="browser",
            facts={
                "address": "none (this machine), lan, lan:IP, adb or adb:serial",
                "runtimes": "onnxruntime, litert",
            },
        ),
    },
)
