"""The runtimes of the page: pinned npm packages, fetched once, checked, kept in the user's cache.

Nothing is loaded from a content network: ``edgessl devices setup browser`` fetches the packages
from the user's own registry, and the page gets the files from this machine.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edgessl.core import files
from edgessl.core.errors import EdgeSSLError, FileInvalid, MissingExtra
from edgessl.devices.base import Progress

SETUP = "edgessl devices setup browser"
REGISTRY = "https://registry.npmjs.org"
MAX_TARBALL = 64 << 20
TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Package:
    """An npm package at one version, and the files that are taken from it.

    Attributes:
        name: As in the registry.
        version: Exact.
        licence: SPDX name in its ``package.json``.
        integrity: Of the tarball, as the registry publishes it.
        runtime: Which runtime of ours it belongs to, as ``onnxruntime``.
        files: Path in the tarball to SHA-256.
    """

    name: str
    version: str
    licence: str
    integrity: str
    runtime: str
    files: Mapping[str, str]

    @property
    def folder(self) -> str:
        """Name of its folder in the cache."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}"


TABLE = tomllib.loads(Path(__file__).with_name("packages.toml").read_text("utf-8"))["package"]
PACKAGES = tuple(Package(**entry) for entry in TABLE)
RUNTIMES = tuple(dict.fromkeys(package.runtime for package in PACKAGES))
# A worker has no import map: the one import by package name becomes an import by path.
UTILS = "wasm-utils.js"
BARE, PLAIN = b'from "@litertjs/wasm-utils"', f'from "./{UTILS}"'.encode()


def cache_folder() -> Path:
    """Return where the packages are kept, by the XDG rule."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "")
    return (base if base.is_absolute() else Path.home() / ".cache") / "edgessl" / "browser"


def setup(say: Progress, tarballs: Path | None = None) -> Path:
    """Fetch the packages that are not there yet; return the folder they are in.

    ``npm pack`` fetches them where npm is installed, so that the user's registry, proxy and
    credentials are used; without it they come over HTTPS from the registry that
    ``NPM_CONFIG_REGISTRY`` names, by default npm's own.

    Args:
        say: Told what is fetched.
        tarballs: A folder that may hold them already, as ``npm pack`` names them; by default the
            cache itself, for machines without a network.

    Raises:
        EdgeSSLError: A package could not be fetched.
        FileInvalid: One differs from what its publisher signed for; nothing of it is kept.
        DiskFull: No space is left.
    """
    for package in PACKAGES:
        if _whole(package):
            say(f"{package.name} {package.version}: there already")
            continue
        say(f"{package.name} {package.version} ({package.licence}): fetching")
        _unpack(package, _checked(package, _tarball(package, tarballs or cache_folder())))
    return cache_folder()


def needed(runtime: str) -> list[Package]:
    """Return the packages of a runtime, the one that is named after it first."""
    return [package for package in PACKAGES if package.runtime == runtime]


def missing(runtime: str) -> list[str]:
    """Return the packages of a runtime that are not set up."""
    return [p.name for p in needed(runtime) if not all(f.is_file() for f in _places(p).values())]


def runtime_files(runtime: str) -> dict[str, bytes]:
    """Return what the page loads for a runtime: file name to content, checked by hash.

    Raises:
        MissingExtra: Not set up.
        FileInvalid: A file in the cache was changed.
    """
    if absent := missing(runtime):
        raise MissingExtra(f"{', '.join(absent)} for the browser is not set up", hint=SETUP)
    found: dict[str, bytes] = {}
    for package in needed(runtime):
        for inside, path in _places(package).items():
            data = path.read_bytes()
            if files.sha256_bytes(data) != package.files[inside]:
                raise FileInvalid(f"{path} was changed or cut", hint=f"remove it, then {SETUP}")
            name = UTILS if package.name == f"@litertjs/{UTILS[:-3]}" else Path(inside).name
            found[name] = data.replace(BARE, PLAIN)
    return found


def label(runtime: str) -> str:
    """Return name and version of the package that runs the model."""
    package = needed(runtime)[0]
    return f"{package.name} {package.version}"


def _places(package: Package) -> dict[str, Path]:
    folder = cache_folder() / package.folder
    return {inside: folder / Path(inside).name for inside in package.files}


def _whole(package: Package) -> bool:
    return all(
        path.is_file() and files.sha256_file(path) == package.files[inside]
        for inside, path in _places(package).items()
    )


def _tarball(package: Package, tarballs: Path) -> bytes:
    path = tarballs / f"{package.folder}.tgz"
    if path.is_file():
        return path.read_bytes()
    return _npm_pack(package) if shutil.which("npm") else _download(package)


def _npm_pack(package: Package) -> bytes:
    argv = ["npm", "pack", "--ignore-scripts", "--silent", f"{package.name}@{package.version}"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                argv, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _unfetched(package, f"npm: {error}") from error
        found = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(found) != 1:
            raise _unfetched(package, f"npm: {done.stderr.strip()[-300:] or done.returncode}")
        return found[0].read_bytes()


def _download(package: Package) -> bytes:
    names = ("NPM_CONFIG_REGISTRY", "npm_config_registry")
    registry = next((os.environ[n] for n in names if os.environ.get(n)), REGISTRY).rstrip("/")
    parts = urlsplit(registry)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost"):
        raise _unfetched(package, f"the registry {registry} is not an https address")
    stem = package.name.rpartition("/")[2]
    url = f"{registry}/{package.name}/-/{stem}-{package.version}.tgz"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            data = answer.read(MAX_TARBALL + 1)
    except (OSError, ValueError) as error:
        raise _unfetched(package, f"{url}: {error}") from error
    if len(data) > MAX_TARBALL:
        raise _unfetched(package, f"{url} is larger than {MAX_TARBALL >> 20} MiB")
    return data


def _unfetched(package: Package, why: str) -> EdgeSSLError:
    return EdgeSSLError(
        f"{package.name} {package.version} could not be fetched: {why}",
        hint=f"without a network: npm pack {' '.join(f'{p.name}@{p.version}' for p in PACKAGES)} "
        f"elsewhere, copy the .tgz files to {cache_folder()}, then {SETUP}",
    )


def _checked(package: Package, tarball: bytes) -> bytes:
    digest = base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    if f"sha512-{digest}" != package.integrity:
        raise FileInvalid(
            f"the tarball of {package.name} {package.version} is not the published one: "
            f"sha512 {digest[:16]}..., published as {package.integrity[7:23]}...",
            hint="the registry or the connection changed it; nothing was kept",
        )
    return tarball


def _unpack(package: Package, tarball: bytes) -> None:
    """Take the named files; no path of the archive is ever used as a path here."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as archive:
            for member in archive:  # once through: going back would unpack it all again
                if member.isfile() and member.name in package.files:
                    stream = archive.extractfile(member)
                    found[member.name] = stream.read() if stream else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise FileInvalid(
            f"{package.name} {package.version} cannot be unpacked: {error}"
        ) from error
    for inside, path in _places(package).items():
        data = found.get(inside, b"")
        if files.sha256_bytes(data) != package.files[inside]:
            raise FileInvalid(f"{inside} in {package.name} {package.version} is another file")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_bytes(path, data)
