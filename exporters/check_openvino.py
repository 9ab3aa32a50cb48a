"""The structure of an OpenVINO IR: an XML graph whose constants lie in a second file.

Read in one pass by expat, without a tree. Nothing that XML can unfold or fetch is let in, so that
expat and OpenVINO's own parser see the same document. Format: IR version 11 (OpenVINO 2026.4).
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.parsers import expat

from edgessl.core.errors import FileInvalid
from edgessl.exporters.check_common import HINT, data_bytes, elements, refuse

MAX_TAGS = 1_000_000
MAX_LAYERS = 10_000  # the nets here have some hundreds; 20,000 compile for minutes
MAX_DEPTH = 32
VERSIONS = {"10", "11"}
OPSET = re.compile(r"opset[0-9]{1,2}")
NUMBER = re.compile(r"[0-9]{1,15}")
# bits of an element; text is left out, as it unfolds to more than its bytes
BITS = {
    "f64": 64, "i64": 64, "u64": 64, "f32": 32, "i32": 32, "u32": 32, "f16": 16, "bf16": 16,
    "i16": 16, "u16": 16, "i8": 8, "u8": 8, "boolean": 8, "f8e4m3": 8, "f8e5m2": 8, "f8e8m0": 8,
    "i4": 4, "u4": 4, "nf4": 4, "f4e2m1": 4, "u2": 2, "u1": 1,
}  # fmt: skip
# a layer's own attributes never hold one; "..." (an ellipsis) is none
PATH = re.compile(r"(^|[\s,;=])(/|~/|[A-Za-z]:[\\/]|\\\\)|(^|[/\\])\.\.($|[/\\])|://")
# OpenVINO opens the file that an entry of this name points to
WEIGHTS_PATH = re.compile(rb"weights_path", re.IGNORECASE)


def check(path: Path, text: bytes, weights: int) -> None:
    """Refuse an IR that is not one flat, connected graph with its constants in its ``.bin``.

    Args:
        path: The ``.xml``, for the message.
        text: What it holds.
        weights: Size of the ``.bin`` in bytes.

    Raises:
        FileInvalid: Says what is wrong.
    """
    if not text.startswith((b"<?xml", b"<net")) or b"\0" in text:
        refuse(path, "no OpenVINO IR: it does not begin with <?xml or <net in UTF-8")
    # before any parser: entities that unfold to gigabytes are declared in a DOCTYPE
    if b"<!" in text:
        refuse(path, "it holds a <! declaration (DOCTYPE, ENTITY, CDATA or a comment)")
    if WEIGHTS_PATH.search(text):
        refuse(path, "it points to weights by a path")
    _Net(path, weights).read(text)


class _Net:
    """The layers, ports and edges seen so far."""

    def __init__(self, path: Path, weights: int) -> None:
        self.path, self.weights = path, weights
        self.tags: list[str] = []
        self.count = 0
        self.sections: set[str] = set()
        self.layer: dict[str, str] = {}
        self.parts: set[str] = set()
        self.sides: list[int] = []
        self.types: dict[str, str] = {}
        self.ports: set[tuple[str, str, str]] = set()  # layer, "input" or "output", port
        self.edges: list[tuple[str, str, str, str]] = []

    def read(self, text: bytes) -> None:
        """Parse, then look at the graph as a whole."""
        parser = expat.ParserCreate("UTF-8")
        parser.buffer_text = True
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self.characters
        parser.XmlDeclHandler = self.declaration
        parser.ProcessingInstructionHandler = self.instruction
        try:
            parser.Parse(text, True)
        except expat.ExpatError as error:
            raise FileInvalid(f"{self.path} is not well-formed XML: {error}", hint=HINT) from error
        self.graph()

    def declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        """Want UTF-8, which both parsers read alike."""
        if encoding is not None and encoding.lower() != "utf-8":
            refuse(self.path, f"it is encoded as {encoding}")

    def instruction(self, target: str, _data: str) -> None:
        """Refuse what asks a parser to do something."""
        refuse(self.path, f"it holds a processing instruction, {target!r}")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Look at one element; attributes come before what is inside."""
        above = self.tags[-1] if self.tags else ""
        self.tags.append(tag)
        self.count += 1
        if self.count > MAX_TAGS or len(self.tags) > MAX_DEPTH:
            refuse(self.path, f"more than {MAX_TAGS} elements, or {MAX_DEPTH} inside each other")
        depth = len(self.tags)
        if depth == 1 and (tag != "net" or attributes.get("version") not in VERSIONS):
            refuse(
                self.path, f"no OpenVINO IR: <{tag[:40]}> of version {attributes.get('version')}"
            )
        if depth == 2:
            if tag in self.sections:
                refuse(self.path, f"<{tag[:40]}> is there twice")
            self.sections.add(tag)
        if tag == "layer":
            self.start_layer(attributes)
        elif tag == "edge":
            self.start_edge(attributes)
        elif above == "layer" and tag != "rt_info":
            self.start_part(tag, attributes)
        elif tag == "port":
            self.start_port(above, attributes)

    def start_layer(self, attributes: dict[str, str]) -> None:
        """Want a known opset and an identity of its own."""
        if self.tags != ["net", "layers", "layer"]:
            refuse(self.path, "a layer inside a layer: nested graphs are not read")
        number, version = attributes.get("id", ""), attributes.get("version", "")
        if not NUMBER.fullmatch(number) or number in self.types:
            refuse(self.path, f"a layer with the id {number[:20]!r}, which is none or taken")
        if not OPSET.fullmatch(version):
            refuse(self.path, f"a layer of opset {version[:40]!r}, which needs a loaded library")
        if len(self.types) >= MAX_LAYERS:
            refuse(self.path, f"more than {MAX_LAYERS} layers")
        self.layer, self.parts = attributes, set()
        self.types[number] = attributes.get("type", "")

    def start_part(self, tag: str, attributes: dict[str, str]) -> None:
        """Look at ``data``, ``input`` or ``output`` of a layer."""
        if tag not in ("data", "input", "output") or tag in self.parts:
            refuse(self.path, f"a layer has a <{tag[:40]}>, or has it twice")
        self.parts.add(tag)
        if tag != "data":
            return
        for name, value in attributes.items():
            if PATH.search(value):
                refuse(self.path, f"layer {self.layer['id']} holds a path in {name[:40]!r}")
        if "shape" in attributes and "element_type" in attributes:
            self.typed(attributes)
        elif {"offset", "size"} & set(attributes) and self.types[self.layer["id"]] == "Const":
            refuse(self.path, f"constant {self.layer['id']} has no type or no shape")

    def typed(self, data: dict[str, str]) -> None:
        """Want a shape that can be held, and of a constant exactly its bytes, in the ``.bin``."""
        what = f"layer {self.layer['id']}"
        sides = [side.strip() for side in data["shape"].split(",")] if data["shape"] else []
        constant = self.types[self.layer["id"]] == "Const"
        if not constant:  # a side may be unknown (-1, ?) or a range (1..8)
            sides = [side if NUMBER.fullmatch(side) else "1" for side in sides]
        if len(sides) > 64 or not all(NUMBER.fullmatch(side) for side in sides):
            refuse(self.path, f"{what} has the shape {data['shape'][:80]!r}")
        count = elements(self.path, what, map(int, sides))
        if data["element_type"] not in BITS:
            refuse(self.path, f"{what} is of type {data['element_type'][:40]!r}")
        if constant:
            offset, size = data.get("offset", ""), data.get("size", "")
            if not (NUMBER.fullmatch(offset) and NUMBER.fullmatch(size)):
                refuse(self.path, f"{what} lies at {offset[:20]!r}, {size[:20]!r} bytes")
            if int(offset) + int(size) > self.weights:
                refuse(
                    self.path,
                    f"{what} ends at byte {int(offset) + int(size)} of its weights, which have "
                    f"{self.weights}",
                )
            wanted = data_bytes(count, BITS[data["element_type"]])
            if int(size) != wanted:
                refuse(self.path, f"{what} promises {wanted} bytes and holds {size}")

    def start_port(self, above: str, attributes: dict[str, str]) -> None:
        """Note a port; its sides follow as text."""
        place = (self.layer.get("id", ""), above, attributes.get("id", ""))
        if self.tags[:3] != ["net", "layers", "layer"] or place in self.ports:
            refuse(
                self.path, f"layer {place[0]} has a port {place[2][:20]!r} out of place or twice"
            )
        self.ports.add(place)
        self.sides = []

    def start_edge(self, attributes: dict[str, str]) -> None:
        """Note an edge; ports may come after it."""
        if self.tags != ["net", "edges", "edge"]:
            refuse(self.path, "an edge inside a layer: nested graphs are not read")
        names = ("from-layer", "from-port", "to-layer", "to-port")
        one, two, three, four = (attributes.get(name, "")[:20] for name in names)
        self.edges.append((one, two, three, four))

    def characters(self, text: str) -> None:
        """Take a side of a port."""
        if self.tags[-1] == "dim" and text.strip():
            if not re.fullmatch(r"-1|[0-9]{1,15}", text.strip()):
                refuse(self.path, f"a port has a side of {text.strip()[:40]!r}")
            self.sides.append(max(int(text), 1))

    def end(self, tag: str) -> None:
        """Want of a layer what its type needs, of a port a shape that can be held."""
        self.tags.pop()
        if tag == "port":
            elements(self.path, f"a port of layer {self.layer['id']}", self.sides)
        elif tag == "layer" and self.layer.get("type") == "Const" and "data" not in self.parts:
            refuse(self.path, f"constant {self.layer['id']} has no data")

    def graph(self) -> None:
        """Want every input fed once, from a port that is there, and no circle."""
        kinds = set(self.types.values())
        if not {"Parameter", "Result"} <= kinds:
            refuse(self.path, "a graph without an input or without an output")
        fed: set[tuple[str, str]] = set()
        after: dict[str, list[str]] = {}
        waits = dict.fromkeys(self.types, 0)
        for source, out, target, into in self.edges:
            there = {(source, "output", out), (target, "input", into)} <= self.ports
            if not there or (target, into) in fed:
                refuse(
                    self.path,
                    f"an edge from {source}:{out} to {target}:{into}, which are not there or taken",
                )
            fed.add((target, into))
            after.setdefault(source, []).append(target)
            waits[target] += 1
        unfed = {(layer, port) for layer, side, port in self.ports if side == "input"} - fed
        if unfed:
            refuse(self.path, f"input {min(unfed)} of a layer comes from nowhere")
        ready = [layer for layer, count in waits.items() if count == 0]
        for layer in ready:  # grows while it is walked
            for target in after.get(layer, ()):
                waits[target] -= 1
                if waits[target] == 0:
                    ready.append(target)
        if len(ready) < len(waits):
            refuse(self.path, "its layers form a circle")
