"""Environments of packages that are compared with, made by pip when a benchmark runs; none of them is a dependency of Tastemaker."""

import json
import os
import subprocess
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from report import OUT


def environment(name: str, requirements: Sequence[str]) -> Path:
    """The Python of an environment under benchmarks/out that has them, made where it is not there yet.

    It borrows this one's packages where it does not have its own, torch above all.
    """
    folder = OUT / f"venv-{name}"
    python, made = folder / "bin" / "python", folder / "made"
    wanted = "\n".join(requirements)
    if not made.exists() or made.read_text() != wanted:
        venv.create(folder, with_pip=True, clear=True)
        packages = next(folder.glob("lib/python*/site-packages"))
        (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([python, "-m", "pip", "install", "-q", *requirements], check=True)
        made.write_text(wanted)
    return python


def told(python: Path, script: Path, *arguments: object) -> Any:
    """What a script in another environment prints last, as JSON; it has one thread, and leaves logs under benchmarks/out."""
    alone = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    OUT.mkdir(exist_ok=True)
    command = [str(python), str(script), *map(str, arguments)]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env=alone, cwd=OUT)
    return json.loads(done.stdout.splitlines()[-1])
