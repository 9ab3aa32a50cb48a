"""Work in a process of its own without importing torch again: it is forked from a server.

The server imports and computes nothing, so that a fork of it is as good as a new process.
"""

import multiprocessing
import os
import resource
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["edgessl.api", "edgessl.stages.pretrain", "sklearn.datasets"])


def start(work, *arguments):
    """Start ``work``, a function of a module, in a fork."""
    process = CONTEXT.Process(target=work, args=arguments)
    process.start()
    return process


def pretrain(settings, out):
    """Pretrain, or go on where the last process ended."""
    from edgessl import api
    from edgessl.core.console import Reporter

    api.pretrain(settings=settings, out=Path(out), resume=True, reporter=Reporter(quiet=True))


def hold(folder, ready):
    """Work in a run folder for ever."""
    from edgessl.core.runs import RunFolder

    run = RunFolder.create(Path(folder), "held", resume=True)
    ready.set()
    multiprocessing.Event().wait()
    del run


def command(arguments, folder, said, memory_mb):
    """Be the command line, with little more memory than is in use; stderr goes to ``said``."""
    os.chdir(folder)
    stream = open(said, "w", buffering=1)  # noqa: SIM115  (until this process ends)
    os.dup2(stream.fileno(), 2)
    from edgessl.cli.main import main

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.argv[1:] = arguments
    main(arguments)
