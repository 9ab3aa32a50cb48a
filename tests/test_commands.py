"""What holds for every command, the ones added later included."""

import pytest
import typer.main

from edgessl.cli import app as commands
from edgessl.cli import bench, data, delivery, devices, export, info, look, start  # noqa: F401  (they add commands)


def walk(group, path=()):
    for name in group.commands:
        command = group.commands[name]
        if hasattr(command, "commands"):
            yield from walk(command, (*path, name))
        else:
            yield (*path, name), command


PROGRAM = typer.main.get_command(commands.app)
COMMANDS = dict(walk(PROGRAM))


def options_of(command):
    return {name for parameter in command.params for name in parameter.opts}


@pytest.mark.parametrize("path", list(COMMANDS), ids=" ".join)
def test_every_command_has_the_common_options_and_examples(path):
    command = COMMANDS[path]
    assert {"--json", "--verbose", "-v"} <= options_of(command)
    _, _, examples = (command.help or "").partition("Examples:")
    assert f"edgessl {' '.join(path)}" in examples
    short = {name: p.name for p in command.params for name in p.opts if len(name) == 2}
    meaning = {"-v": "verbose", "-q": "quiet", "-o": "out", "-y": "yes", "-h": "help"}
    assert short.items() <= meaning.items()


def test_names_of_parts_are_completed_wherever_they_are_options():
    for command in COMMANDS.values():
        for parameter in command.params:
            if {"--encoder", "--method", "--target", "--device"} & set(parameter.opts):
                assert parameter._custom_shell_complete is not None, (command.name, parameter.name)


def test_commands_are_listed_in_the_order_of_the_chain_and_grouped():
    listed = PROGRAM.list_commands(typer.Context(PROGRAM))
    assert listed == [name for name in commands.ORDER if name in listed]
    assert set(commands.ORDER) == set(PROGRAM.commands)
    panels = {
        name: getattr(command, "rich_help_panel", None)
        for name, command in PROGRAM.commands.items()
    }
    known = {commands.START, commands.CHAIN, commands.USE, commands.LOOK}
    assert set(panels.values()) == known, panels


def test_the_python_api_mirrors_the_commands():
    from edgessl import api

    for path in COMMANDS:
        if path not in {("list",), ("schema",)}:  # tables and models are importable as they are
            assert callable(getattr(api, "_".join(path))), path
