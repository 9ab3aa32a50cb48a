"""The runtimes of the page: pinned, fetched from the user's registry, checked by hash."""

import base64

import pytest
from npm_registry import npm_registry, tarball

from edgessl.core.errors import EdgeSSLError, FileInvalid
from edgessl.devices.browser import packages


@pytest.fixture
def registry(tmp_path, monkeypatch):
    with npm_registry(tmp_path / "cache", monkeypatch) as served:
        yield served


def test_packages_come_from_the_users_registry_and_only_named_files_are_kept(registry, tmp_path):
    said = []
    folder = packages.setup(said.append)
    kept = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert kept == [
        "litertjs-core-1.2.3/index.js", "litertjs-wasm-utils-1.2.3/index.js", "ort-1.2.3/a.mjs",
    ]  # fmt: skip
    assert not list(tmp_path.rglob("evil"))
    assert packages.runtime_files("onnxruntime") == {"a.mjs": b"export {}"}
    lite = packages.runtime_files("litert")
    assert lite["index.js"] == b'import { f } from "./wasm-utils.js"'
    assert lite["wasm-utils.js"] == b"f"
    registry.clear()  # what is there is not fetched again
    packages.setup(said.append)
    assert said[-3:] == [f"{n} 1.2.3: there already" for n in (
        "ort", "@litertjs/core", "@litertjs/wasm-utils")]  # fmt: skip


def test_a_tarball_that_is_not_the_published_one_is_refused_and_nothing_is_kept(registry, tmp_path):
    registry["/npm/ort/-/ort-1.2.3.tgz"] = tarball({"package/a.mjs": b"export {}", "more": b"x"})
    with pytest.raises(FileInvalid, match="is not the published one"):
        packages.setup(lambda line: None)
    assert not (tmp_path / "cache").exists()
    assert packages.missing("onnxruntime") == ["ort"]


def test_a_changed_file_in_the_cache_is_refused(registry):
    folder = packages.setup(lambda line: None)
    (folder / "ort-1.2.3" / "a.mjs").write_bytes(b"alert(1)")
    with pytest.raises(FileInvalid, match="was changed or cut"):
        packages.runtime_files("onnxruntime")


def test_without_a_network_the_packages_come_from_a_folder(registry, tmp_path):
    bodies = dict(registry)
    registry.clear()
    with pytest.raises(EdgeSSLError, match=r"could not be fetched.*404") as caught:
        packages.setup(lambda line: None)
    assert "npm pack ort@1.2.3" in caught.value.hint
    folder = packages.cache_folder()
    assert str(folder) in caught.value.hint
    folder.mkdir(parents=True)
    for path, name in zip(bodies, ("ort", "litertjs-core", "litertjs-wasm-utils"), strict=True):
        (folder / f"{name}-1.2.3.tgz").write_bytes(bodies[path])
    packages.setup(lambda line: None)
    assert packages.missing("litert") == []


def test_plain_http_is_refused_but_on_this_machine(registry, monkeypatch):
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://registry.example/")
    with pytest.raises(EdgeSSLError, match="is not an https address"):
        packages.setup(lambda line: None)


def test_the_pinned_table_is_whole():
    allowed = {"MIT", "Apache-2.0"}
    for package in packages.PACKAGES:
        assert package.licence in allowed
        assert len(base64.b64decode(package.integrity.removeprefix("sha512-"))) == 64
        assert all(len(digest) == 64 for digest in package.files.values())
        assert package.version.count(".") == 2
