"""Stopping Ray while another thread collects garbage that holds object references: the process must outlive it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import gc, sys, threading, time
from contextlib import ExitStack
from pathlib import Path
from tastemaker.config import Settings
from tastemaker.home import Home
from tastemaker.runtime import open_ray, prepare_ray
arguments = prepare_ray(Settings(), Home.make(Path(sys.argv[1])))
import ray

class Cycle: pass

stack = ExitStack()
open_ray(ray, arguments, stack)
gc.disable()
ballast = [[i] for i in range(1_000_000)]  # a collection then takes longer than Ray needs to stop
cycles = []
for _ in range(400):
    cycle = Cycle()
    cycle.ref, cycle.itself = ray.put(1), cycle
    cycles.append(cycle)
del cycle
gc.enable()

def collect():
    while cycles:
        cycles.pop()
        gc.collect() if gc.isenabled() else time.sleep(0.01)

thread = threading.Thread(target=collect, daemon=True)
thread.start()
time.sleep(0.3)
stack.close()
print("left", len(cycles))
"""


@pytest.mark.slow
def test_the_process_outlives_ray(tmp_path: Path) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TASTEMAKER_"))}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "home")]
    run = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    word, left = run.stdout.split()[-2:]
    assert word == "left"
    assert int(left) > 0  # it was stopped amid collections
