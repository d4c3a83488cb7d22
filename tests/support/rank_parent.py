"""A process that has imported what ranks import, and forks them: each would need seconds of a core for it.

`ranks.run_ranks` starts one for a session. It reads a line for each group of ranks, `[[words, file of the output], …]`, and answers with
a line of process ids, then with a line of exit codes. It ends with whoever started it.
"""

import json
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

MODULES = (
    "torch.distributed",
    "torchrec",
    "pytest",
    "tastemaker_training.fits.ranker",
    "tastemaker_training.fits.two_tower",
)
"""With all that they import; what is missing here is imported by each rank."""


def serve() -> None:
    """Until there is nobody any more who asks."""
    for name in MODULES:
        import_module(name)
    for line in sys.stdin:
        pids = [fork(words, output) for words, output in json.loads(line)]
        try:
            _tell(pids)
            codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        except BaseException:
            _kill(pids)
            raise
        _tell(codes)


def fork(words: Sequence[str], output: str) -> int:
    """Runs a file with its arguments as the main module of a process of its own; gives its id."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        nothing, told = (
            os.open(os.devnull, os.O_RDONLY),
            os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        )
        for number, file in enumerate((nothing, told, told)):
            os.dup2(file, number)
        sys.argv = list(words)
        runpy.run_path(words[0], run_name="__main__")
        code = 0
    finally:
        if code:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _tell(numbers: Sequence[int]) -> None:
    sys.stdout.write(f"{json.dumps(numbers)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve()
