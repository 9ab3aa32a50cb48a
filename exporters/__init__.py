"""The targets a plain net can be written for; each entry is one file beside this one.

``runtime`` is the package that runs the written file; nothing else is needed for that.
"""

from edgessl.core.registry import Entry, Table

EXPORTERS = Table(
    "target",
    {
        "onnx": Entry(
            "edgessl.exporters.to_onnx:OnnxExporter",
            "ONNX opset 18, one self-contained file; runs with ONNX Runtime",
            extra="onnx",
            facts={
                "format": "onnx",
                "precisions": "none",
                "layout": "NCHW",
                "runtime": "onnxruntime",
            },
        ),
        "openvino": Entry(
            "edgessl.exporters.to_openvino:OpenvinoExporter",
            "OpenVINO IR (xml and bin) for Intel and Arm processors",
            extra="openvino",
            facts={
                "format": "openvino",
                "precisions": "none",
                "layout": "NCHW",
                "runtime": "openvino",
            },
        ),
        "tflite": Entry(
            "edgessl.exporters.to_tflite:TfliteExporter",
            "LiteRT (TensorFlow Lite) flatbuffer with NHWC input; phones and small boards",
            extra="tflite",
            facts={
                "format": "tflite",
                "precisions": "none",
                "layout": "NHWC",
                "runtime": "ai_edge_litert",
            },
        ),
    },
)
