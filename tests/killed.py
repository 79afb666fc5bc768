"""Runs a verb again and again, ended by a signal before its first rename, its second, and so on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

DRIVER = """
import importlib, itertools, json, os, signal, sys
from functools import partial
from mvde import cli, publish
folder, kept, number, *arguments = sys.argv[1:]
for name in ('mvde.cli.' + arguments[0], *(['torch'] if arguments[0] in ('export', 'train') else [])):
    importlib.import_module(name)  # once, and not in every child

def run(step):
    steps = itertools.count(1)
    def counted(call, *given, **options):
        if next(steps) == step:
            os.kill(os.getpid(), int(number))
        return call(*given, **options)
    for name in ("replace", "rename", "link"):
        setattr(os, name, partial(counted, getattr(os, name)))
    publish.exchange = partial(counted, publish.exchange)
    signal.alarm(300)  # an export takes ten seconds
    cli.main(arguments)
    os._exit(0 if next(steps) <= step else 99)

for step in itertools.count(1):
    os.chdir(os.path.dirname(folder))
    os.system(f"rm -rf '{folder}' && cp -a '{kept}' '{folder}'")
    os.chdir(folder)
    if (child := os.fork()) == 0:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1), os.dup2(devnull, 2)
        try:
            run(step)
        except SystemExit as error:
            os._exit(error.code or 0)
        finally:
            os._exit(98)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([step, status]), flush=True)
    if sys.stdin.readline() == "end\\n":
        break
"""


def ended_before_each_rename(
    verb: Sequence[str], number: signal.Signals, kept: Path, folder: Path
) -> Iterator[tuple[int, int]]:
    """Yield the step and the exit status of each run; the last one is not ended.

    Each starts on a copy of ``kept``. The caller looks at ``folder`` before it asks for the next run.
    """
    command = [sys.executable, "-c", DRIVER, str(folder), str(kept), str(int(number)), *verb]
    driver: Any = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with driver:
        while True:
            step, status = json.loads(driver.stdout.readline())
            yield step, status
            driver.stdin.write("end\n" if status == 0 else "on\n")
            driver.stdin.flush()
            if status == 0:
                return
