"""Archives from outside: read as numpy reads them, or refused with the reason."""

import io
import os
import random
import struct
import zipfile

import numpy as np
import pytest
from small_models import damaged

from edgessl.core.archives import read_npz
from edgessl.core.errors import FileInvalid

ARRAYS = {
    "images": np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3),
    "names": np.array(["a", "grün"]),
    "big_endian": np.arange(3, dtype=">f8"),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "none": np.zeros((0, 3), np.float32),
    "one": np.array(7),
}


def archive(arrays, save=np.savez):
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def zipped(**entries):
    """Return a zip file of raw entries; ``__`` in a name stands for a slash."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in entries.items():
            packed.writestr(name.replace("__", "/").replace("_npy", ".npy"), data)
    return buffer.getvalue()


def npy(header, data=b""):
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def claims(shape="(4,)", descr="'<f4'", data=b"\0" * 16):
    return zipped(
        x_npy=npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}", data)
    )


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives_come_back_as_numpy_reads_them(tmp_path, save):
    path = tmp_path / "a.npz"
    path.write_bytes(archive(ARRAYS, save))
    got = read_npz(path, list(ARRAYS), optional=["absent"])
    with np.load(path) as expected:
        for name in ARRAYS:
            assert got[name].dtype.newbyteorder("=") == expected[name].dtype.newbyteorder("=")
            np.testing.assert_array_equal(got[name], expected[name])
    got["images"][0] = 0
    assert set(read_npz(path, ["one"])) == {"one"}


def objects(path):
    path.write_bytes(archive({"x": np.array([{"a": 1}], dtype=object)}))


def fifo(path):
    os.mkfifo(path)


def encrypted(path):
    data = bytearray(claims())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1
    path.write_bytes(data)


def short_claim(path):
    """Declare fewer bytes than the entry unpacks to, in both headers."""
    data = bytearray(zipped(x_npy=b"\x93NUMPY" + b"\0" * 100_000))
    for signature, size in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + size
        data[at : at + 4] = struct.pack("<I", 5)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (zipped(x_npy=b"\0" * (64 << 20)), "zip bomb"),
        (zipped(x_npy=b"", **{"..__..__etc__cron.d__x": b""}), r"named '\.\./\.\./etc"),
        (zipped(__etc__passwd=b""), "named '/etc/passwd'"),
        (zipped(**{f"x{i}_npy": b"" for i in range(70)}), "70 entries"),
        (b"PK\x05\x06 is no zip file", "not a readable"),
        (b"\x80\x04\x95 a pickle", "not a readable"),
        (claims("(5,)"), "promises float32 .5,., 20 bytes, and holds 16"),
        (claims("(1 << 60,)"), "header that cannot be read"),
        (claims("(1152921504606846976,)"), "and holds 16"),
        (claims("(-4,)"), "promises the shape"),
        (claims("(True, 4)"), "promises the shape"),
        (claims("(1000000000000, 0)", data=b""), None),
        (claims(descr="'|O'"), "never objects"),
        (claims(descr="[('a', '<f4')]"), "plain numbers"),
        (claims(descr="'<f4,<f4'"), "plain numbers"),
        (claims("(1000000000000,)", descr="'<U0'", data=b""), "plain numbers"),
        (claims("(4,)", descr="'<U1'", data=b"\xff" * 16), "not Unicode"),
        (claims("(4,)", descr="'<U1'", data=struct.pack("<4I", *[0xD800] * 4)), "not Unicode"),
        (claims("(" * 80), "header that cannot be read"),
        (claims("-" * 3000 + "1"), "header that cannot be read"),
        (zipped(x_npy=b"\x93NUMPY\x03\x00\xff\xff\xff\xff"), "version 1 or 2"),
        (zipped(y_npy=b""), "has no 'x'"),
        (objects, "never objects"),
        (encrypted, "is encrypted"),
        (short_claim, "."),
        (fifo, "no such file"),
        (lambda path: path.mkdir(), "no such file"),
    ],
)  # fmt: skip
def test_an_attack_by_an_archive_is_named(tmp_path, data, said):
    path = tmp_path / "x.npz"
    if callable(data):
        data(path)
    else:
        path.write_bytes(data)
    if said is None:  # nothing is as harmless as nothing
        assert read_npz(path, ["x"])["x"].shape == (1000000000000, 0)
        return
    with pytest.raises(FileInvalid, match=said):
        read_npz(path, ["x"])


def test_archives_have_a_limit_and_other_entries_stay_packed(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(archive({"x": np.zeros(1000), "y": np.zeros(100_000)}))
    with pytest.raises(FileInvalid, match="at most 10000 are read"):
        read_npz(path, ["x", "y"], max_bytes=10_000)
    assert read_npz(path, ["x"], max_bytes=10_000)["x"].shape == (1000,)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_archive_gives_its_arrays_or_its_reason(tmp_path, save):
    path, good, chance = tmp_path / "a.npz", archive(ARRAYS, save), random.Random(4)
    for _ in range(400):
        path.write_bytes(damaged(good, chance))
        try:
            got = read_npz(path, ["images", "names"], optional=["columns"])
        except FileInvalid:
            pass
        else:
            assert got["images"].nbytes < 10_000
