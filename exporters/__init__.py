"""The targets a plain net can be written for; each entry is one file beside this one.

``runtime`` is the package that runs the written file; nothing else is needed for that. For
every precision an entry says what is known of its files: ``run here`` (every export runs them
on this machine and compares the answers), ``structure checked`` (they run here too, but not on
what they are meant for: only their structure was held against its rules), or ``-``, not offered.
"""

from edgessl.core.registry import Entry, Table

# what --quantize takes; float32 is "none"
PRECISIONS = ("none", "dynamic", "fp16", "int8", "w8a16")
RUN_HERE, NOT_OFFERED = "run here", "-"

EXPORTERS = Table(
    "target",
    {
        "onnx": Entry(
            "edgessl.exporters.to_onnx:OnnxExporter",
            "ONNX, one self-contained file; runs with ONNX Runtime",
            extra="onnx",
            facts={
                "format": "onnx",
                "layout": "NCHW",
                "runtime": "onnxruntime",
                "none": "run here",
                "dynamic": "run here",
                "fp16": "run here",
                "int8": "run here",
                "w8a16": "run here",
            },
        ),
        "openvino": Entry(
            "edgessl.exporters.to_openvino:OpenvinoExporter",
            "OpenVINO IR (xml and bin) for Intel and Arm processors",
            extra="openvino",
            facts={
                "format": "openvino",
                "layout": "NCHW",
                "runtime": "openvino",
                "none": "run here",
                "dynamic": "run here",
                "fp16": "run here",
                "int8": "run here",
                "w8a16": "-",
            },
        ),
        "tflite": Entry(
            "edgessl.exporters.to_tflite:TfliteExporter",
            "LiteRT (TensorFlow Lite) flatbuffer with NHWC input; phones and small boards",
            extra="tflite",
            facts={
                "format": "tflite",
                "layout": "NHWC",
                "runtime": "ai_edge_litert",
                "none": "run here",
                "dynamic": "run here",
                "fp16": "run here",
                "int8": "run here",
                "w8a16": "run here",
            },
        ),
        "tensorrt": Entry(
            "edgessl.exporters.to_tensorrt:TensorrtExporter",
            "ONNX for TensorRT, which builds its engine on the board (NVIDIA Jetson)",
            extra="onnx",
            facts={
                "format": "onnx",
                "layout": "NCHW",
                "runtime": "onnxruntime",
                "none": "structure checked",
                "dynamic": "-",
                "fp16": "structure checked",
                "int8": "structure checked",
                "w8a16": "-",
            },
        ),
    },
)


def offered_by(target: str) -> tuple[str, ...]:
    """Return the precisions that a target is written in, float32 first."""
    facts = EXPORTERS[target].facts
    return tuple(name for name in PRECISIONS if facts.get(name, NOT_OFFERED) != NOT_OFFERED)
