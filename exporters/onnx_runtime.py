"""ONNX Runtime without its telemetry, on one thread."""

from __future__ import annotations

import os
from typing import Any

# read once, when the library is loaded; from 1.29 on its builds for Linux and macOS send events
# about models and machine, and keep an identifier and a database in the user's folders
NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"


def import_onnxruntime() -> Any:
    """Import onnxruntime so that it sends nothing and stores nothing about its use.

    Every import of it, or of its tools, comes after a call of this.
    """
    os.environ[NO_TELEMETRY] = "1"
    import onnxruntime

    # the builds for Windows do not heed the variable
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def open_session(source: str | bytes) -> Any:
    """Return an ``InferenceSession`` of a path or of a model's bytes: CPU, one thread, quiet."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # one thread adds in one order: the same logits on every run
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
