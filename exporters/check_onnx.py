"""The structure of an ONNX file, read from its protobuf wire format without protobuf.

Messages and field numbers: onnx/onnx-ml.proto, IR version 14 (onnx 1.23). Stricter than protobuf
where two parsers could read one file in two ways: no repeated singular field, no known field of
another wire type, no groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgessl.exporters.check_common import data_bytes, elements, refuse

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MAX_FIELDS = 1_000_000  # a small net has some thousands
MAX_DEPTH = 24  # three messages to a nested graph
MAX_DIMS = 64
IR_VERSIONS = range(3, 33)
DOMAINS = {"", "ai.onnx"}
# what quantisers and converters to float16 write; EPContext, for one, would load other files
MICROSOFT_OPS = {
    "DequantizeLinear", "DynamicQuantizeMatMul", "FusedConv", "FusedGemm", "FusedMatMul", "Gelu",
    "MatMulIntegerToFloat", "QGemm", "QLinearAdd", "QLinearAveragePool", "QLinearConcat",
    "QLinearConv", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul",
    "QLinearReduceMean", "QLinearSigmoid", "QLinearSoftmax", "QuantizeLinear", "QuickGelu",
}  # fmt: skip

# message: {field number: (name, kind)}. Kinds: int, f32, f64, bytes, or a message; "*" is
# repeated; "count*" are numbers that are only counted. Other fields are stepped over.
SCHEMA: dict[str, dict[int, tuple[str, str]]] = {
    "Model": {
        1: ("ir_version", "int"), 2: ("producer_name", "bytes"), 3: ("producer_version", "bytes"),
        4: ("domain", "bytes"), 5: ("model_version", "int"), 6: ("doc_string", "bytes"),
        7: ("graph", "Graph"), 8: ("opset_import", "Opset*"), 14: ("metadata_props", "Entry*"),
        20: ("training_info", "bytes*"), 25: ("functions", "bytes*"),
    },
    "Opset": {1: ("domain", "bytes"), 2: ("version", "int")},
    "Entry": {1: ("key", "bytes"), 2: ("value", "bytes")},
    "Graph": {
        1: ("node", "Node*"), 2: ("name", "bytes"), 5: ("initializer", "Tensor*"),
        10: ("doc_string", "bytes"), 11: ("input", "ValueInfo*"), 12: ("output", "ValueInfo*"),
        13: ("value_info", "ValueInfo*"), 14: ("quantization_annotation", "Annotation*"),
        15: ("sparse_initializer", "bytes*"), 16: ("metadata_props", "Entry*"),
    },
    "Annotation": {1: ("tensor_name", "bytes"), 2: ("names", "Entry*")},
    "Node": {
        1: ("input", "bytes*"), 2: ("output", "bytes*"), 3: ("name", "bytes"),
        4: ("op_type", "bytes"), 5: ("attribute", "Attribute*"), 6: ("doc_string", "bytes"),
        7: ("domain", "bytes"), 8: ("overload", "bytes"), 9: ("metadata_props", "Entry*"),
    },
    "Attribute": {
        1: ("name", "bytes"), 2: ("f", "f32"), 3: ("i", "int"), 4: ("s", "bytes"),
        5: ("t", "Tensor"), 6: ("g", "Graph"), 7: ("floats", "f32*"), 8: ("ints", "count*"),
        9: ("strings", "bytes*"), 10: ("tensors", "Tensor*"), 11: ("graphs", "Graph*"),
        13: ("doc_string", "bytes"), 14: ("tp", "Type"), 15: ("type_protos", "Type*"),
        20: ("type", "int"), 21: ("ref_attr_name", "bytes"), 22: ("sparse_tensor", "bytes"),
        23: ("sparse_tensors", "bytes*"),
    },
    "Tensor": {
        1: ("dims", "int*"), 2: ("data_type", "int"), 3: ("segment", "bytes"),
        4: ("float_data", "f32*"), 5: ("int32_data", "count*"), 6: ("string_data", "bytes*"),
        7: ("int64_data", "count*"), 8: ("name", "bytes"), 9: ("raw_data", "bytes"),
        10: ("double_data", "f64*"), 11: ("uint64_data", "count*"), 12: ("doc_string", "bytes"),
        13: ("external_data", "bytes*"), 14: ("data_location", "int"),
        16: ("metadata_props", "Entry*"),
    },
    "ValueInfo": {
        1: ("name", "bytes"), 2: ("type", "Type"), 3: ("doc_string", "bytes"),
        4: ("metadata_props", "Entry*"),
    },
    "Type": {
        1: ("tensor_type", "TensorType"), 4: ("sequence_type", "Inner"), 5: ("map_type", "Map"),
        6: ("denotation", "bytes"), 8: ("sparse_tensor_type", "TensorType"),
        9: ("optional_type", "Inner"),
    },
    "TensorType": {1: ("elem_type", "int"), 2: ("shape", "Shape")},
    "Inner": {1: ("elem_type", "Type")},
    "Map": {1: ("key_type", "int"), 2: ("value_type", "Type")},
    "Shape": {1: ("dim", "Dimension*")},
    "Dimension": {1: ("dim_value", "int"), 2: ("dim_param", "bytes"), 3: ("denotation", "bytes")},
}  # fmt: skip
COUNTED = {"count", "f32", "f64"}  # of repeated ones only how many there are
WIRES = {"int": VARINT, "count": VARINT, "f32": FIXED32, "f64": FIXED64}
# parts that EdgeSSL never writes, and why a runtime must not see them
FORBIDDEN = {
    "functions": "functions of its own, which can unfold without bound",
    "training_info": "training graphs",
    "sparse_initializer": "sparse tensors, which unfold to any size",
    "sparse_tensor": "sparse tensors, which unfold to any size",
    "sparse_tensors": "sparse tensors, which unfold to any size",
    "segment": "tensors in segments",
}
# TensorProto.DataType: bits of an element, and the field that holds it when raw_data does not
TYPES = {
    1: (32, "float_data"), 2: (8, "int32_data"), 3: (8, "int32_data"), 4: (16, "int32_data"),
    5: (16, "int32_data"), 6: (32, "int32_data"), 7: (64, "int64_data"), 8: (0, "string_data"),
    9: (8, "int32_data"), 10: (16, "int32_data"), 11: (64, "double_data"), 12: (32, "uint64_data"),
    13: (64, "uint64_data"), 16: (16, "int32_data"), 17: (8, "int32_data"), 18: (8, "int32_data"),
    19: (8, "int32_data"), 20: (8, "int32_data"), 21: (4, "int32_data"), 22: (4, "int32_data"),
    23: (4, "int32_data"), 25: (2, "int32_data"), 26: (2, "int32_data"),
}  # fmt: skip
TYPED = {field for _, field in TYPES.values()}
CONTINUED = bytes(range(128, 256))

Span = tuple[int, int]
Values = dict[str, list[Any]]


def check(path: Path, data: bytes) -> None:
    """Refuse a file that is not one self-contained, bounded ONNX model.

    Raises:
        FileInvalid: Says what is wrong.
    """
    _Walk(path, data).message("Model", 0, len(data), 0)


class _Walk:
    """One pass over a file; what a message checked is dropped at its end."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data, self.fields_left = path, data, MAX_FIELDS
        # of these kinds a message is more than its fields
        self.checks: dict[str, Callable[[Values], Any]] = {
            "Model": self.model, "Graph": self.graph, "Node": self.node, "Tensor": self.tensor,
            "Entry": self.entry, "TensorType": self.tensor_type, "Shape": lambda v: v.get("dim"),
            "Dimension": lambda v: v.get("dim_value", [0])[0],
        }  # fmt: skip

    def message(self, kind: str, start: int, end: int, depth: int) -> Any:
        """Check the message in a span; return what its parent wants to know of it."""
        if depth > MAX_DEPTH:
            refuse(self.path, f"messages are nested more than {MAX_DEPTH} deep")
        values: Values = {}
        schema = SCHEMA[kind]
        for number, wire, value in self.wire_fields(start, end):
            if number not in schema:
                continue
            name, form = schema[number]
            if name in FORBIDDEN:
                refuse(self.path, f"the file holds {FORBIDDEN[name]}")
            base, repeated = form.removesuffix("*"), form.endswith("*")
            if not repeated and name in values:
                refuse(self.path, f"{kind}.{name} is there twice")
            into = values.setdefault(name, [])
            packed = repeated and base in WIRES and wire == LENGTH
            if not packed and wire != WIRES.get(base, LENGTH):
                refuse(self.path, f"{kind}.{name} is of wire type {wire}")
            if packed:
                into.extend(self.packed(f"{kind}.{name}", base, value))
            elif base in SCHEMA:
                found = self.message(base, value[0], value[1], depth + 1)
                if found is not None:
                    into.append(found)
            else:
                into.append(1 if repeated and base in COUNTED else value)
        check = self.checks.get(kind)
        return check(values) if check else None

    def wire_fields(self, start: int, end: int) -> Iterator[tuple[int, int, Any]]:
        """Yield field number, wire type, and the number, or the span of its bytes."""
        at = start
        while at < end:
            self.fields_left -= 1
            if self.fields_left < 0:
                refuse(self.path, f"more than {MAX_FIELDS} fields")
            tag, at = self.varint(at, end)
            number, wire = tag >> 3, tag & 7
            if number == 0 or tag >> 32:
                refuse(self.path, f"no protobuf field at byte {at}")
            if wire == VARINT:
                value, at = self.varint(at, end)
                yield number, wire, value
                continue
            if wire == LENGTH:
                size, at = self.varint(at, end)
            elif wire in (FIXED32, FIXED64):
                size = 4 if wire == FIXED32 else 8
            else:
                refuse(self.path, f"no protobuf field at byte {at} (wire type {wire})")
            if size > end - at:
                refuse(self.path, f"cut: field {number} at byte {at} promises {size} bytes")
            yield number, wire, (at, at + size)
            at += size

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """Return an unsigned number of up to 64 bits and the place behind it."""
        value = 0
        for place in range(10):
            if at >= end:
                refuse(self.path, f"cut inside a number at byte {at}")
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, at
        return refuse(self.path, f"a number at byte {at} does not end")

    def packed(self, what: str, base: str, span: Span) -> list[int]:
        """Return packed numbers; of those that are only counted, how many."""
        start, end = span
        if base in ("f32", "f64"):
            size = 4 if base == "f32" else 8
            if (end - start) % size:
                refuse(self.path, f"{what} is cut: {end - start} bytes")
            return [(end - start) // size]
        if start < end and self.data[end - 1] >= 0x80:
            refuse(self.path, f"{what} is cut inside a number")
        if base == "count":
            return [len(self.data[start:end].translate(None, CONTINUED))]
        numbers = []
        while start < end and len(numbers) <= MAX_DIMS:
            value, start = self.varint(start, end)
            numbers.append(value)
        return numbers

    def text(self, span: Span) -> str:
        """Return a short name."""
        start, end = span
        if end - start > 1024:
            refuse(self.path, f"a name of {end - start} bytes")
        try:
            return self.data[start:end].decode()
        except UnicodeDecodeError:
            refuse(self.path, f"a name at byte {start} is not UTF-8")

    def model(self, values: Values) -> None:
        """Want a version that exists, and a graph."""
        version = values.get("ir_version", [0])[0]
        if version not in IR_VERSIONS:
            refuse(self.path, f"no ONNX model: IR version {version}")
        if "graph" not in values or "opset_import" not in values:
            refuse(self.path, "no ONNX model: it has no graph, or no opset")

    def graph(self, values: Values) -> bool:
        """Want a graph that gives something; tell the model that there is one."""
        if "output" not in values:
            refuse(self.path, "a graph without outputs")
        return True

    def node(self, values: Values) -> None:
        """Want operators that the runtime itself has; others would be asked of a library."""
        operator = self.text(values.get("op_type", [(0, 0)])[0])
        domain = self.text(values.get("domain", [(0, 0)])[0])
        if not operator:
            refuse(self.path, "a node without an operator")
        if domain not in DOMAINS and (domain, operator) not in ALLOWED:
            refuse(self.path, f"operator {domain}.{operator} is not one that EdgeSSL writes")

    def entry(self, values: Values) -> None:
        """Refuse settings for the runtime in the metadata."""
        if self.data[slice(*values.get("key", [(0, 0)])[0])] == b"ort_config":
            refuse(self.path, "the metadata holds settings for the runtime (ort_config)")

    def tensor_type(self, values: Values) -> None:
        """Want a shape that can be held; an unknown side counts as one."""
        shape = values.get("shape", [])
        sides = [_signed(n) for dims in shape for n in dims]
        elements(self.path, "a declared shape", [max(n, 1) if n >= -1 else n for n in sides])

    def tensor(self, values: Values) -> None:
        """Want data inside the file, and exactly as much as type and shape say."""
        what = f"tensor '{self.text(values.get('name', [(0, 0)])[0])[:80]}'"
        if "external_data" in values or values.get("data_location", [0])[0] != 0:
            refuse(self.path, f"the data of {what} lies in another file")
        kind = values.get("data_type", [0])[0]
        if kind not in TYPES:
            refuse(self.path, f"{what} is of an unknown type ({kind})")
        dims = values.get("dims", [])
        if len(dims) > MAX_DIMS:
            refuse(self.path, f"{what} has more than {MAX_DIMS} sides")
        count = elements(self.path, what, map(_signed, dims))
        bits, field = TYPES[kind]
        held = {name for name in TYPED if values.get(name)}
        if "raw_data" in values and bits:
            start, end = values["raw_data"][0]
            wanted, seen, unit, home = data_bytes(count, bits), end - start, "bytes", "raw_data"
        else:
            given = values.get(field, [])
            # numbers of less than a byte stand packed, one byte to each int32
            wanted = data_bytes(count, bits) if 0 < bits < 8 else count
            seen = len(given) if field == "string_data" else sum(given)
            unit, home = "values", field
        if wanted != seen:
            refuse(self.path, f"{what} promises {wanted} {unit} and holds {seen}")
        if held - {home}:
            refuse(self.path, f"{what} holds data in two places")


ALLOWED = {("com.microsoft", operator) for operator in MICROSOFT_OPS}


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
