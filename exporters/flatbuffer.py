"""A reader of flatbuffers that never leaves the file.

Offsets are relative and unsigned, so a hostile file can point anywhere; every step here is held
against the bounds first. Format: the flatbuffers internals document (vtable, then inline fields).
"""

from __future__ import annotations

import struct
from pathlib import Path

from edgessl.exporters.check_common import refuse

MAX_STEPS = 2_000_000  # tables and vectors, each time one is reached
SCALARS = {1: "<B", 2: "<H", 4: "<I", 8: "<Q"}


class Buffer:
    """A whole file, and how many steps may still be walked in it."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data, self.steps = path, data, MAX_STEPS

    def number(self, at: int, size: int = 4) -> int:
        """Return the unsigned little-endian number at a place."""
        if at < 0 or at + size > len(self.data):
            refuse(self.path, f"cut: {size} bytes wanted at {at}, the file has {len(self.data)}")
        return struct.unpack_from(SCALARS[size], self.data, at)[0]

    def target(self, at: int) -> int:
        """Follow the offset at a place."""
        self.steps -= 1
        if self.steps < 0:
            refuse(self.path, f"more than {MAX_STEPS} tables and vectors")
        offset = self.number(at)
        place = at + offset
        if offset == 0 or place + 4 > len(self.data):
            refuse(self.path, f"an offset at byte {at} leads to {place}, out of the file")
        if place % 4:
            refuse(self.path, f"an offset at byte {at} leads to {place}, which is not aligned")
        return place

    def table(self, at: int) -> Table:
        """Return the table that begins at a place."""
        return Table(self, at)

    def vector(self, at: int, size: int) -> tuple[int, int]:
        """Return where the elements of the vector at a place begin, and how many there are."""
        count = self.number(at)
        if count * size > len(self.data) - at - 4:
            refuse(self.path, f"cut: a vector at byte {at} promises {count} x {size} bytes")
        if size > 1 and (at + 4) % size:
            refuse(self.path, f"a vector at byte {at} is not aligned to {size} bytes")
        return at + 4, count


class Table:
    """One table: its fields by their numbers in the schema."""

    def __init__(self, buffer: Buffer, at: int) -> None:
        self.buffer, self.at = buffer, at
        back = struct.unpack("<i", struct.pack("<I", buffer.number(at)))[0]
        self.vtable = at - back
        if self.vtable % 2:
            refuse(buffer.path, f"the table at byte {at} is not aligned")
        self.vtable_size = buffer.number(self.vtable, 2)
        self.size = buffer.number(self.vtable + 2, 2)
        inside = self.vtable + self.vtable_size <= len(buffer.data) >= at + self.size
        if self.vtable_size < 4 or self.vtable_size % 2 or self.size < 4 or not inside:
            refuse(buffer.path, f"the table at byte {at} does not fit into the file")

    def place(self, field: int, size: int) -> int | None:
        """Return where the inline part of a field lies; None when it is not there."""
        slot = 4 + 2 * field
        if slot + 2 > self.vtable_size:
            return None
        offset = self.buffer.number(self.vtable + slot, 2)
        if offset == 0:
            return None
        if offset < 4 or offset + size > self.size or (self.at + offset) % size:
            refuse(
                self.buffer.path, f"field {field} of the table at byte {self.at} lies outside it"
            )
        return self.at + offset

    def scalar(self, field: int, size: int, default: int = 0) -> int:
        """Return an unsigned number."""
        place = self.place(field, size)
        return default if place is None else self.buffer.number(place, size)

    def signed(self, field: int, size: int, default: int = 0) -> int:
        """Return a signed number."""
        value = self.scalar(field, size, default)
        return value - (1 << 8 * size) if value >= 1 << (8 * size - 1) else value

    def child(self, field: int) -> Table | None:
        """Return a table that this one points to."""
        place = self.place(field, 4)
        return None if place is None else self.buffer.table(self.buffer.target(place))

    def children(self, field: int) -> list[Table]:
        """Return the tables of a vector."""
        place = self.place(field, 4)
        if place is None:
            return []
        start, count = self.buffer.vector(self.buffer.target(place), 4)
        return [self.buffer.table(self.buffer.target(start + 4 * i)) for i in range(count)]

    def span(self, field: int, size: int = 1) -> tuple[int, int] | None:
        """Return where the numbers of a vector begin and how many there are."""
        place = self.place(field, 4)
        return None if place is None else self.buffer.vector(self.buffer.target(place), size)

    def integers(self, field: int, most: int) -> list[int]:
        """Return a vector of int32 of at most that length."""
        start, count = self.span(field, 4) or (0, 0)
        if count > most:
            refuse(self.buffer.path, f"a list of {count} numbers at byte {start}")
        return list(struct.unpack_from(f"<{count}i", self.buffer.data, start))

    def text(self, field: int) -> str | None:
        """Return a string, at most 64 KiB of UTF-8."""
        span = self.span(field)
        if span is None:
            return None
        start, count = span
        if count > 1 << 16 or self.buffer.number(start + count, 1) != 0:
            refuse(self.buffer.path, f"a text at byte {start} does not end")
        try:
            return self.buffer.data[start : start + count].decode()
        except UnicodeDecodeError:
            refuse(self.buffer.path, f"a text at byte {start} is not UTF-8")
