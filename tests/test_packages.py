"""What lies in the source folders is what gets installed.

A sub-package or data file that pyproject.toml forgets works in the checkout and is lost in the
wheel.
"""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
FOLDERS = {"edgessl": ROOT / "edgessl"} | {
    package: ROOT / folder for package, folder in SETUPTOOLS["package-dir"].items()
}


def files_by_package() -> dict[str, list[Path]]:
    """Return the files of every folder that holds one, by the package name of the folder."""
    found: dict[str, list[Path]] = {}
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                inside = path.parent.relative_to(folder).parts
                found.setdefault(".".join([package, *inside]), []).append(path)
    return found


def test_the_packages_list_names_every_folder_with_code():
    with_code = [
        name for name, files in files_by_package().items() if any(f.suffix == ".py" for f in files)
    ]
    assert sorted(with_code) == sorted(SETUPTOOLS["packages"])


def test_every_package_has_an_init():
    missing = [
        name
        for name, files in files_by_package().items()
        if name in SETUPTOOLS["packages"] and not any(f.name == "__init__.py" for f in files)
    ]
    assert missing == []


def test_package_data_covers_every_other_file_and_no_pattern_is_dead():
    covered: set[Path] = set()
    for package, patterns in SETUPTOOLS["package-data"].items():
        parent = max((p for p in FOLDERS if f"{package}.".startswith(f"{p}.")), key=len)
        folder = FOLDERS[parent].joinpath(*package.removeprefix(parent).split("."))
        for pattern in patterns:
            matched = set(folder.glob(pattern))
            assert matched, f"{package}: nothing matches {pattern}"
            covered |= matched
    data = {f for files in files_by_package().values() for f in files if f.suffix != ".py"}
    assert sorted(data - covered) == []
