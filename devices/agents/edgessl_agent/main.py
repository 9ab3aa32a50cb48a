"""The command line of the agent."""

from __future__ import annotations

import argparse
import errno
import importlib.util
import json
import os
import platform
from typing import Any

from . import PROTO, software
from .channel import Channel, Failed, end_with_input
from .facts import facts, runtimes
from .meter import Meter


def main() -> int:
    """Run one command; 0 when it ended with its last line."""
    parser = argparse.ArgumentParser(prog="agent.pyz", description="EdgeSSL agent")
    commands = parser.add_subparsers(dest="command", required=True)
    asked = commands.add_parser("facts", help="describe this board")
    asked.add_argument("--runtimes", action="store_true", help="import every runtime, too")
    commands.add_parser("bench", help="time a model").add_argument("--plan", required=True)
    arguments = parser.parse_args()
    channel = Channel()
    if arguments.command == "facts":
        told = facts()
        channel.send("facts", dict(told, opened=runtimes()) if arguments.runtimes else told)
        return 0
    try:
        _bench(channel, arguments.plan)
    except Failed as error:
        channel.send("error", {"type": error.kind, "msg": str(error)})
        return 1
    except Exception as error:  # the workstation shows type and text; nobody else is there to tell
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        name = "DiskFull" if full else type(error).__name__
        channel.send("error", {"type": name, "msg": str(error)})
        return 1
    return 0


def _bench(channel: Channel, path: str) -> None:
    with open(path, encoding="utf-8") as stream:
        plan: dict[str, Any] = json.load(stream)
    if plan["proto"] != PROTO:
        raise Failed("ProtocolMismatch", "plan %s, agent %s" % (plan["proto"], PROTO))
    plan["work"] = os.path.dirname(os.path.abspath(path))
    readings = os.path.join(plan["work"], "meter.jsonl")
    # first of all: a process is forked before there are threads, and while it is small
    meter = Meter(plan.get("meter"), readings, [channel.descriptor])
    end_with_input(plan.get("heartbeat_s"))
    if importlib.util.find_spec("numpy") is None:
        raise Failed("MissingRuntime", "numpy is not installed")
    module, runtime = software.import_runtime(plan["runtime"])
    versions = {"python": platform.python_version(), "numpy": software.versions()["numpy"]}
    channel.send("hello", dict(versions, proto=PROTO, runtime=runtime))
    from .bench import Bench

    Bench(channel, plan, meter).run(module)
