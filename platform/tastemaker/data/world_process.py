"""The world's process, seen from ours: starts it, asks it in batches over pipes, ends it.

It ends with us, however we end: its input closes. It learns nothing of the platform but the slates it is
asked about, and we learn nothing of it but visitors, clicks and expected clicks.
"""

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

from tastemaker.data.world import Visitor
from tastemaker.errors import ExperimentError, MissingExtraError
from tastemaker.home import Home

ANSWER_SECONDS = 120.0


class WorldProcess:
    """A simulated world over the data of a catalogue. Thread-safe; as a context manager it ends at exit."""

    def __init__(self, home: Home, catalogue: str, seed: int = 0) -> None:
        """Starts the process; it fits while we do other things, and the first question waits for it.

        Raises:
            MissingExtraError: scikit-learn is not installed.
        """
        if find_spec("sklearn") is None:
            raise MissingExtraError(
                "package scikit-learn is not installed", mend="pip install 'tastemaker[train]'"
            )
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._lock = threading.Lock()
        self._ready = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tastemaker.data.world", str(home.root), catalogue, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | single,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is ours to handle
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def visitors(self, num_visitors: int, seed: int, prefix: str = "visitor") -> list[Visitor]:
        """See `World.visitors`."""
        return [
            Visitor(name, sessions) for name, sessions in self._ask("visitors", [num_visitors, seed, prefix])
        ]

    def click(self, asked: Sequence[tuple[str, Sequence[str], int]]) -> list[list[int]]:
        """Clicked positions for each (visitor_id, slate, request number); see `World.click`."""
        return self._checked(self._ask("click", [list(one) for one in asked]), asked)

    def expected(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[float]:
        """Expected clicks for each (visitor_id, slate)."""
        return self._checked(self._ask("expected", [list(one) for one in asked]), asked)

    @staticmethod
    def _checked(answers: list[Any], asked: Sequence[Any]) -> list[Any]:
        assert len(answers) == len(asked)
        return answers

    def close(self) -> None:
        """Ends the process; harmless when it has ended."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.terminate()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, method: str, arguments: list[Any]) -> Any:
        line = json.dumps({"method": method, "arguments": arguments})
        with self._lock:
            if not self._ready:
                self._read()
                self._ready = True
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()
            except (OSError, ValueError) as error:
                raise self._ended() from error
            return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        try:
            there, _, _ = select.select([self._process.stdout], [], [], ANSWER_SECONDS)
            line = self._process.stdout.readline() if there else ""
        except (OSError, ValueError) as error:
            raise self._ended() from error
        if not line:
            raise self._ended()
        answer = json.loads(line)
        if "error" in answer:
            raise ExperimentError(
                "the simulated world refuses", value=answer["error"], mend="see its message"
            )
        return answer["result"]

    def _ended(self) -> ExperimentError:
        code = self._process.poll()
        state = "does not answer" if code is None else f"ended with code {code}"
        return ExperimentError(f"the simulated world {state}", mend="see its messages above")
