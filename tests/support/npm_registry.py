"""An npm registry with made-up packages, on this machine."""

import base64
import hashlib
import io
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from edgessl.devices.browser import packages


def tarball(members):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def pinned(name, runtime, members, wanted):
    data = tarball(members)
    digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
    taken = {inside: hashlib.sha256(members[inside]).hexdigest() for inside in wanted}
    return data, packages.Package(name, "1.2.3", "MIT", f"sha512-{digest}", runtime, taken)


@contextmanager
def npm_registry(cache, monkeypatch):
    """Put made-up packages into a registry on this machine, in place of those that are pinned.

    Yields what it serves: path to body.
    """
    ort, ort_pin = pinned(
        "ort", "onnxruntime",
        {"package/a.mjs": b"export {}", "package/../../evil": b"x", "/etc/evil": b"x"},
        ["package/a.mjs"],
    )  # fmt: skip
    lite = b'import { f } from "@litertjs/wasm-utils"'
    core, core_pin = pinned(
        "@litertjs/core", "litert", {"package/index.js": lite}, ["package/index.js"]
    )
    utils, utils_pin = pinned(
        "@litertjs/wasm-utils", "litert", {"package/index.js": b"f"}, ["package/index.js"]
    )
    paths = {
        "/npm/ort/-/ort-1.2.3.tgz": ort,
        "/npm/@litertjs/core/-/core-1.2.3.tgz": core,
        "/npm/@litertjs/wasm-utils/-/wasm-utils-1.2.3.tgz": utils,
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = paths.get(self.path)
            self.send_response(200 if body else 404)
            self.end_headers()
            self.wfile.write(body or b"no")

        def log_message(self, *arguments):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{http.server_port}/npm/")
    monkeypatch.setattr(packages, "PACKAGES", (ort_pin, core_pin, utils_pin))
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    try:
        yield paths
    finally:
        http.shutdown()
        http.server_close()
