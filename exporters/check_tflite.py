"""The structure of a TensorFlow Lite file, read without its runtime.

Tables and field numbers: the TensorFlow Lite schema, version 3 (ai-edge-litert 2.3). LiteRT finds
data by indices and shapes and runs operators in file order; each is followed here before it does.

Refused although the format has them, as EdgeSSL never writes them: more than one graph, control
flow, variables, custom operators, sparse, text and external tensors, quantisation in blocks.
"""

from __future__ import annotations

from pathlib import Path

from edgessl.exporters.check_common import data_bytes, elements, refuse
from edgessl.exporters.flatbuffer import Buffer, Table

MAX_TENSORS = 100_000  # the nets here have some hundreds
MAX_RANK = 8
MAX_INPUTS = 4096
OPTIONAL_FROM = 2  # a first or second input is never left out (-1)

# TensorType: bits of an element
BITS = {0: 32, 1: 16, 2: 32, 3: 8, 4: 64, 6: 8, 7: 16, 9: 8, 15: 32, 16: 16, 17: 4, 18: 16, 19: 2}

# BuiltinOperator: what the answer of an image net can be computed from. Left out: recurrent cells,
# hash tables, embeddings, control flow, custom operators, variables, random numbers, StableHLO.
OPERATORS = {
    *range(7), 8, 9, 11, 12, 13, 14, *range(17, 24), 25, 26, 28, 34, *range(36, 44), 45, 47, 48, 49,
    50, *range(53, 68), *range(69, 80), *range(81, 103), 104, 105, 106, 107, 108, 110, 111, 114,
    116, 117, 123, 126, 128, 130, 145, 150, 152, 158,
}  # fmt: skip

# BuiltinOptions: bytes of each field, v for a vector of int32, - for one that we never write
OPTIONS = {
    1: "1441441", 2: "1444144", 5: "144441", 8: "11111-", 9: "4", 10: "41", 11: "11", 12: "1",
    13: "4444", 15: "4411", 17: "v", 19: "4", 21: "1", 23: "44", 27: "1", 28: "11", 29: "1",
    30: "v", 32: "444441", 35: "4", 37: "11", 40: "1", 49: "14411", 55: "1", 57: "1",
    59: "44", 61: "4", 64: "44", 74: "11", 75: "4", 77: "1", 79: "4", 94: "4", 101: "111",
    102: "11", 116: "1",
} | dict.fromkeys(
    [
        22, 24, 25, 26, 33, 34, 36, 38, 39, 41, 42, 43, 44, 45, 46, 47, 48, 51, 52, 53, 54, 56,
        60, 62, 63, *range(65, 69), 72, 73, 76, 78, 81, 82, 83, 84, 86, 89, 91, 98, 104, 117,
        123,
    ],
    "",
)  # fmt: skip
# strides, dilations and window sides: a kernel divides by them
POSITIVE = {1: (1, 2, 4, 5), 2: (1, 2, 5, 6), 5: (1, 2, 3, 4), 49: (1, 2), 19: (0,), 94: (0,)}
DEFAULT_ONE = {(1, 4), (1, 5), (2, 5), (2, 6)}  # dilations that are not there are 1


def check(path: Path, data: bytes) -> None:
    """Refuse a file that is not one self-contained, bounded TensorFlow Lite model.

    Raises:
        FileInvalid: Says what is wrong.
    """
    if data[4:8] != b"TFL3":
        refuse(path, f"no TensorFlow Lite model: {data[4:8]!r} where 'TFL3' should stand")
    buffer = Buffer(path, data)
    model = buffer.table(buffer.target(0))
    if (version := model.scalar(0, 4)) != 3:
        refuse(path, f"TensorFlow Lite schema {version}, 3 is read")
    if model.children(8) or model.children(9):
        refuse(path, "it keeps weights in other files (external buffers)")
    model.text(3)
    buffers = [_buffer(path, data, table) for table in model.children(4)]
    _check_indices(path, "buffer", model.integers(5, MAX_TENSORS), len(buffers))
    for entry in model.children(6):
        entry.text(0)
        _check_indices(path, "buffer", [entry.scalar(1, 4)], len(buffers))
    codes = [_operator_code(path, table) for table in model.children(1)]
    graphs = model.children(2)
    if len(graphs) != 1:
        refuse(path, f"it has {len(graphs)} graphs, 1 is read")
    tensors = _check_graph(path, graphs[0], buffers, codes)
    for signature in model.children(7):
        signature.text(2)
        _check_indices(path, "graph", [signature.scalar(4, 4)], 1)
        for end in (*signature.children(0), *signature.children(1)):
            end.text(0)
            _check_indices(path, "tensor", [end.scalar(1, 4)], tensors)


def _buffer(path: Path, data: bytes, table: Table) -> int:
    """Return how many bytes a buffer holds, inside the tables or behind them."""
    place, size = table.scalar(1, 8), table.scalar(2, 8)
    if place <= 1:  # 0 and 1 stand for "not behind"
        return (table.span(0) or (0, 0))[1]
    if place + size > len(data):
        refuse(path, f"cut: a buffer ends at byte {place + size}, the file at {len(data)}")
    return size


def _operator_code(path: Path, table: Table) -> int:
    """Return the operator; up to 126 it stands in an older field, and the larger one counts."""
    code = max(table.signed(0, 1), table.signed(3, 4))
    if code not in OPERATORS or table.text(1):
        refuse(path, f"operator {code} is not one that EdgeSSL writes")
    if not 0 < table.signed(2, 4, 1) < 256:
        refuse(path, f"operator {code} has the version {table.signed(2, 4, 1)}")
    return code


def _check_indices(path: Path, what: str, indices: list[int], count: int) -> None:
    for index in indices:
        if not 0 <= index < count:
            refuse(path, f"{what} {index} is named, there are {count}")


def _check_graph(path: Path, graph: Table, buffers: list[int], codes: list[int]) -> int:
    """Check tensors, then operators in their order; return how many tensors there are."""
    graph.text(4)
    tables = graph.children(0)
    if len(tables) > MAX_TENSORS:
        refuse(path, f"more than {MAX_TENSORS} tensors")
    constant = [_constant(path, table, buffers) for table in tables]
    inputs, outputs = graph.integers(1, MAX_INPUTS), graph.integers(2, MAX_INPUTS)
    _check_indices(path, "tensor", inputs + outputs, len(tables))
    if not inputs or not outputs:
        refuse(path, "a graph without an input or without an output")
    # a tensor that nothing has written has no memory, one of the file cannot be written
    written = set(inputs)
    known = {index for index, is_constant in enumerate(constant) if is_constant}
    if written & known:
        refuse(path, f"tensor {min(written & known)} is an input and holds data")
    for operator in graph.children(3):
        reads, writes = _operator(path, operator, codes)
        _check_indices(path, "tensor", reads + writes, len(tables))
        if unknown := set(reads) - written - known:
            refuse(path, f"tensor {min(unknown)} is read before it is written")
        if twice := set(writes) & (written | known):
            refuse(path, f"tensor {min(twice)} is written, and holds data already")
        written |= set(writes)
    if unknown := set(outputs) - written - known:
        refuse(path, f"tensor {min(unknown)} is an output that nothing writes")
    return len(tables)


def _operator(path: Path, operator: Table, codes: list[int]) -> tuple[list[int], list[int]]:
    """Return the tensors that an operator reads and writes, once its options are checked."""
    _check_indices(path, "operator code", [operator.scalar(0, 4)], len(codes))
    code = codes[operator.scalar(0, 4)]
    unread = operator.scalar(11, 1) or operator.scalar(9, 8)
    if unread or (operator.span(5) or (0, 0))[1]:
        refuse(path, f"an operator ({code}) has options that EdgeSSL never writes")
    _check_options(path, operator, code)
    operator.span(7)
    operator.integers(8, 0)
    reads = operator.integers(1, MAX_INPUTS)
    reads = [t for place, t in enumerate(reads) if t != -1 or place < OPTIONAL_FROM]
    return reads, operator.integers(2, MAX_INPUTS)


def _check_options(path: Path, operator: Table, code: int) -> None:
    kind, options = operator.scalar(3, 1), operator.child(4)
    if options is None:
        return
    if kind not in OPTIONS:
        refuse(path, f"an operator ({code}) has options of an unknown kind, {kind}")
    for field, size in enumerate(OPTIONS[kind]):
        if size in "v-":
            options.integers(field, MAX_RANK if size == "v" else 0)
        else:
            options.scalar(field, int(size))
    for field in POSITIVE.get(kind, ()):
        value = options.signed(field, 4, int((kind, field) in DEFAULT_ONE))
        if not 0 < value <= 1 << 16:
            refuse(path, f"an operator ({code}) has a stride, dilation or side of {value}")


def _constant(path: Path, tensor: Table, buffers: list[int]) -> bool:
    """Return whether a tensor holds data of the file, once that is exactly what it promises."""
    what = f"tensor '{(tensor.text(3) or '')[:80]}'"
    kind = tensor.scalar(1, 1)
    if kind not in BITS:
        refuse(path, f"{what} is of type {kind}, which EdgeSSL never writes")
    shape = tensor.integers(0, MAX_RANK)
    count = elements(path, what, shape)
    signature = tensor.integers(7, MAX_RANK)
    elements(path, what, [max(side, 1) if side >= -1 else side for side in signature])
    if tensor.scalar(5, 1) or tensor.child(6) or tensor.children(9) or tensor.scalar(10, 4):
        refuse(path, f"{what} is a variable, sparse, a variant or lies in another file")
    _check_quantization(path, what, tensor.child(4), shape)
    index = tensor.scalar(2, 4)
    _check_indices(path, "buffer", [index], len(buffers))
    held = buffers[index]
    if held and held != (wanted := data_bytes(count, BITS[kind])):
        refuse(path, f"{what} promises {wanted} bytes and holds {held}")
    return held > 0


def _check_quantization(path: Path, what: str, table: Table | None, shape: list[int]) -> None:
    if table is None:
        return
    if table.scalar(4, 1):
        refuse(path, f"{what} is quantised in a way that EdgeSSL never writes")
    for field in (0, 1):  # minimum and maximum, which nothing reads
        table.span(field, 4)
    scales, zeros = (table.span(field, size) or (0, 0) for field, size in ((2, 4), (3, 8)))
    axis = table.signed(6, 4)
    if scales[1] > 1 and not 0 <= axis < len(shape):
        refuse(path, f"{what} is quantised along axis {axis} of {len(shape)}")
    if scales[1] > 1 and scales[1] != shape[axis]:
        refuse(path, f"{what} has {scales[1]} scales for {shape[axis]} channels")
    if zeros[1] not in (0, 1, scales[1]) or (zeros[1] and not scales[1]):
        refuse(path, f"{what} has {scales[1]} scales and {zeros[1]} zero points")
