"""What the Python for phones is made of: packages of Debian 12 for arm64, pinned by hash.

PyPI has no CPython, and the builds of others either need a C library that a phone does not have or
cannot load wheels. Debian's packages are small, signed when they were pinned here, and kept for
ever by its snapshot service, where a file is found by its SHA-1 after the mirrors dropped it.
"""

from __future__ import annotations

from dataclasses import dataclass

PYTHON = "3.11"
MIRROR = "https://deb.debian.org"
SNAPSHOT = "https://snapshot.debian.org/file"


@dataclass(frozen=True, slots=True)
class Piece:
    """One package file.

    Attributes:
        path: On a mirror of Debian, percent-encoded.
        bytes: Its size.
        sha256: What decides whether it is the file.
        sha1: Its name in the snapshot service; empty where it is not there.
    """

    path: str
    bytes: int
    sha256: str
    sha1: str = ""

    @property
    def name(self) -> str:
        """The package, as in ``libc6``."""
        return self.path.rpartition("/")[2].split("_")[0].replace("%2b", "+")

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it can be had, the quick place first."""
        old = (f"{SNAPSHOT}/{self.sha1}",) if self.sha1 else ()
        return (f"{MIRROR}/{self.path}", *old)


PIECES = (
    Piece(
        "debian/pool/main/g/glibc/libc6_2.36-9%2bdeb12u14_arm64.deb",
        2324660,
        "01f4330719fd4f65580e16ea5a0527f372fca750e8f588d26deaf09f2d3b1cf4",
        "85af57bf1f9fa075163e51c99d9536154c21ab7e",
    ),
    Piece(
        "debian/pool/main/g/gcc-12/libgcc-s1_12.2.0-14%2bdeb12u1_arm64.deb",
        34816,
        "576926b283613db80168ddf76380a3bd877602778cf0d226caa7bfbfa71eacf3",
        "6534755fbb89e7bd0ef86c53fce6f34b4f7bfbd4",
    ),
    Piece(
        "debian/pool/main/g/gcc-12/libstdc%2b%2b6_12.2.0-14%2bdeb12u1_arm64.deb",
        556608,
        "26e138c677a985775331373828a6c286c551ff397cb735d00e2383cb273d1cb2",
        "d0ab5371c1259b637436b4e61381e47385386650",
    ),
    Piece(
        "debian/pool/main/z/zlib/zlib1g_1.2.13.dfsg-1_arm64.deb",
        82744,
        "52b8b8a145bbe1956bba82034f77022cbef0c3d0885c9e32d9817a7932fe1913",
        "3c33d36bd1ec4aedbf4a96334335bd671c204c2f",
    ),
    Piece(
        "debian-security/pool/updates/main/e/expat/libexpat1_2.5.0-1%2bdeb12u5_arm64.deb",
        91748,
        "4a733e7f636de4a4483e3e5d7b02dc8e788b115361a04dd58df89461ce2ae65a",
        "021f0705a06e183aa018f76e81f7fa39d5c7bc17",
    ),
    Piece(
        "debian/pool/main/libf/libffi/libffi8_3.4.4-1_arm64.deb",
        20492,
        "80b5c36177dc0e29d531c7eddbed3cc7355cb490e49f8cfa5959572d161f27b3",
        "a5ce35162ad4207f87b4b53308be802395af31e5",
    ),
    Piece(
        "debian-security/pool/updates/main/p/python3.11/"
        "libpython3.11-minimal_3.11.2-6%2bdeb12u9_arm64.deb",
        813684,
        "dd9847d2f77c5a924b1d3dd953b81f161db9374c94d03b9216191925350928c3",
        "9c368efeba18725da11c70abb64b17b5fe36ec08",
    ),
    Piece(
        "debian-security/pool/updates/main/p/python3.11/"
        "libpython3.11-stdlib_3.11.2-6%2bdeb12u9_arm64.deb",
        1750132,
        "9937cbe3f647aa89a590fec647438ce02098c113d1c6f70e4cb1230c368d42a4",
        "737ec5f1c75c6c6166f0420e72057db21226bebf",
    ),
    Piece(
        "debian-security/pool/updates/main/p/python3.11/"
        "python3.11-minimal_3.11.2-6%2bdeb12u9_arm64.deb",
        1861676,
        "617855dbf3299e03873926c75d61feaf3d36924586aecc1951a0b965a95bc694",
        "d9aa9cbbef1a8ce6898b3cccffe9b78bf6e5a33a",
    ),
)
