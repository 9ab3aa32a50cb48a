"""What the documents say exists: commands, options, recipe keys, files, anchors."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import reference  # docs/reference.py

from edgessl import api
from edgessl.core import schema_words
from edgessl.core.measurement import VERDICT_ORDER
from edgessl.core.recipe import Recipe
from edgessl.core.recipe_problems import problems_of
from edgessl.core.recipe_text import load_yaml
from edgessl.methods import METHODS

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("docs/*.md"))
DOCUMENTS = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
FENCE = re.compile(r"^(`{3,})([\w{}-]*)\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
by_name = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield language and body of every fenced block."""
    return ((found[2], found[3]) for found in FENCE.finditer(text))


def inline(text: str) -> list[str]:
    """Return what stands in backticks outside of blocks, line breaks as blanks."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", FENCE.sub("", text))]


def recipe_keys() -> set[str]:
    schema = Recipe.model_json_schema()
    return {key for key, *_ in schema_words.keys(schema, schema["$defs"])}


# ------------------------------------------------------------------------------------- build


@pytest.mark.slow
def test_pages_build_without_a_warning_and_load_nothing_from_elsewhere(tmp_path):
    command = [
        sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html",
        "-d", str(tmp_path / "trees"), str(ROOT / "docs"), str(tmp_path / "html"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr

    made = {path.stem: path.read_text("utf-8") for path in (tmp_path / "html").glob("*.html")}
    assert set(made) >= {path.stem for path in PAGES}
    for name, page in made.items():
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=\"([^\"]+)\"", page)
        loaded += re.findall(r"<link\b[^>]*?rel=\"stylesheet\"[^>]*?href=\"([^\"]+)\"", page)
        assert [where for where in loaded if "//" in where] == [], name
        assert "generated:" not in page, name
    assert "<math" in made["concepts"]
    ours = [
        name for name, part in vars(api).items()
        if getattr(part, "__module__", "").startswith("edgessl.api") and not name.startswith("_")
    ]  # fmt: skip
    assert len(ours) > 12
    assert [name for name in ours if f'id="edgessl.api.{name}"' not in made["api"]] == []


# --------------------------------------------------------------------------------- reference


def test_every_key_of_a_recipe_has_a_meaning():
    schema = Recipe.model_json_schema()
    bare = [key for key, _, meaning, _ in schema_words.keys(schema, schema["$defs"]) if not meaning]
    assert bare == []


@pytest.mark.parametrize("method", list(METHODS))
def test_every_option_of_a_method_has_a_meaning(method):
    schema = METHODS.load(method).Options.model_json_schema()
    bare = [
        key
        for key, _, meaning, _ in schema_words.keys(schema, schema.get("$defs", {}))
        if not meaning
    ]
    assert bare == []


def test_recipe_page_has_every_section_and_key():
    page = reference.recipe()
    assert {key for key in recipe_keys() if f"`{key}`" not in page} == set()
    assert {name for name in METHODS if f"`{name}`" not in page} == set()


def test_kinds_say_bounds_choices_and_null():
    schema = Recipe.model_json_schema()
    kinds = {key: kind for key, kind, *_ in schema_words.keys(schema, schema["$defs"])}
    assert kinds["data.imgsz"] == "whole number from 8 to 1024".replace("1024", "1,024")
    assert kinds["data.validation_share"] == "number above 0 below 1"
    assert kinds["encoder.stem"] == "one of `stock`, `small`"
    assert kinds["pretrain.max_seconds"] == "number above 0 or `null`"
    assert kinds["finetune.learning_rates"] == "list, not empty: number above 0"
    assert kinds["pretrain.views.crop_scale"] == "list: 2 times number or `null`"


def test_command_page_has_every_visible_command_and_option():
    page, group = reference.commands(), reference.app()
    context = group.context_class(group, info_name="edgessl")
    found = list(reference.walk(group, context))
    assert {"run", "pretrain", "bench", "list"} <= {command.name for command, _ in found}
    for command, inside in found:
        part = page.split(f"## `{inside.command_path}`\n")[1].split("\n## ")[0]
        for option in command.get_params(inside):
            if option.param_type_name == "option" and not option.hidden:
                assert option.opts[0] in part, (command.name, option.opts)
                assert option.help, (command.name, option.opts)


def test_every_verdict_is_explained():
    concepts = (ROOT / "docs/concepts.md").read_text("utf-8")
    assert [name for name in VERDICT_ORDER if f"| `{name}` |" not in concepts] == []


# ---------------------------------------------------------------------------------- contents


def command_lines(text: str) -> Iterator[str]:
    """Yield every line ``edgessl ...`` of a document: in blocks, and in backticks."""
    for language, body in blocks(text):
        if language in ("", "console", "sh", "bash", "text"):
            joined = body.replace("\\\n", " ")
            for line in joined.splitlines():
                found = re.match(r"\s*(?:\$ )?(edgessl .*)", line)
                if found and (language != "text" or "[OPTIONS]" not in line):
                    yield found[1]
    yield from (code for code in inline(text) if code.startswith("edgessl "))


def refusal(line: str) -> str:
    """Return why the program would refuse a command line, '' if it would not."""
    line = re.split(r"\s+(?:#|>|\||;|&&)|\s{2,}\(| …| \.\.\.", line)[0]
    group = reference.app()
    context = group.context_class(group, info_name="edgessl")
    arguments = shlex.split(line)[1:]
    if "--help" in arguments or arguments[:1] in ([], ["COMMAND"], ["--version"]):
        return ""
    while hasattr(group, "list_commands"):
        name = arguments.pop(0) if arguments else ""
        if group.get_command(context, name) is None:
            return f"no command {name!r}"
        group = group.get_command(context, name)
        context = group.context_class(group, info_name=name, parent=context)
    if not arguments:  # a command that is only named, such as `edgessl predict`
        return ""
    keys = [a.partition("=")[0] for before, a in pairwise(arguments) if before == "--set"]
    try:
        group.make_context(context.info_name, arguments, parent=context.parent)
    except Exception as refused:  # noqa: BLE001  (the option parser's errors have no public base)
        return str(refused) or repr(refused)
    unknown = [key for key in keys if not known_key(key) and key != "section.key"]
    return f"unknown keys {unknown}" if unknown else ""


def known_key(key: str) -> bool:
    return key in recipe_keys() or key.startswith("pretrain.options.")


@by_name
def test_every_command_line_would_be_understood(path):
    text = path.read_text("utf-8")
    wrong = {line: why for line in command_lines(text) if (why := refusal(line))}
    assert wrong == {}


def test_a_wrong_command_line_would_be_found():
    assert "no command" in refusal("edgessl pretain")
    assert "--epoch" in refusal("edgessl pretrain --epoch 5")
    assert refusal("edgessl run --set pretrain.epoch=5") == "unknown keys ['pretrain.epoch']"
    assert refusal("edgessl export last --target") != ""
    assert refusal("edgessl run quickstart --set pretrain.epochs=5  # short") == ""


@by_name
def test_every_recipe_key_and_block_is_valid(path):
    text, sections = path.read_text("utf-8"), set(Recipe.model_fields)
    for language, body in blocks(text):
        if language == "yaml":
            assert problems_of(load_yaml(body, path.name)) == [], body
    named = (re.match(r"([a-z_]+)\.([a-z_.]+)(?::|$)", code) for code in inline(text))
    keys = {found[0].rstrip(":") for found in named if found and found[1] in sections}
    files = {"labels.csv", "data.json", "export.sh"}
    known = recipe_keys()
    unknown = {
        key for key in keys - files
        if not known_key(key) and not any(k.startswith(f"{key}.") for k in known)
    }  # fmt: skip
    assert unknown == set()


def anchors(path: Path) -> set[str]:
    """Return what a link to a page may name: its headings, as GitHub and MyST write them."""
    text = re.sub(
        r"<!-- generated: ([a-z ]+) -->",
        lambda found: reference.PAGES[found[1]](),
        path.read_text("utf-8"),
    )
    titles = re.findall(r"^#{1,6} (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).strip().replace(" ", "-") for t in titles}


@by_name
def test_every_relative_link_leads_somewhere(path):
    text = FENCE.sub("", path.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        other = (path.parent / name) if name else path
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target
