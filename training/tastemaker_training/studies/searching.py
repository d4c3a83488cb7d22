"""A study's trials, run by Ray Tune beside the process that follows them. Not what Ray Tune is told (`tuner`)."""

import shutil
import threading
import time
from types import TracebackType
from typing import Self

from tastemaker.config import Settings
from tastemaker.errors import TrainingError
from tastemaker.home import Home, write_bytes
from tastemaker.terminal import progress
from tastemaker_training.distributed.exchange import ABORT
from tastemaker_training.distributed.workers import start_ray
from tastemaker_training.plan.search_space import TuneConfig
from tastemaker_training.studies.study import Study
from tastemaker_training.studies.tracking import TrialRuns

_POLL_SECONDS = 0.5
_STOP_SECONDS = 20.0


class Search:
    """Ray Tune's run, in a thread: there Ray leaves Ctrl-C to us. An error in the block ends it."""

    def __init__(
        self, study: Study, settings: Settings, home: Home, config: TuneConfig, num_workers: int
    ) -> None:
        self._study, self._settings, self._home = study, settings, home
        self._config, self._num_workers = config, num_workers
        self._thread = threading.Thread(target=self._run, name="tuning", daemon=True)
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        start_ray(self._settings, self._home)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._thread.is_alive():
            write_bytes(self._study.folder / ABORT, b"")
            self._thread.join(_STOP_SECONDS)
        for left in (self._home / "checkpoints").glob("workers-*"):  # of trials; no other runs under the lock
            shutil.rmtree(left, ignore_errors=True)

    def follow(self, runs: TrialRuns) -> None:
        """Runs the trials to their end, and tells MLflow meanwhile.

        Raises:
            TrainingError: Tune itself failed; trials that fail do not end a study.
        """
        seen, alive = len(self._study.events()), True
        num_ended = sum(trial.outcome != "running" for trial in self._study.trials())
        self._thread.start()
        with progress(f"tuning {self._study.part}", self._config.num_trials) as advance:
            advance(num_ended)
            while alive:
                alive = self._thread.is_alive()
                events = self._study.events()[seen:]
                for event in events:
                    runs.write(event)
                    advance(event["event"] == "end")
                seen += len(events)
                time.sleep(_POLL_SECONDS)  # Ctrl-C in `join` would make Python take the thread for ended
        if self._failure is not None:
            lines = [line for line in str(self._failure).splitlines() if line.strip()]
            what = f"study {self._study.name} ended early: {lines[-1] if lines else type(self._failure).__name__}"
            raise TrainingError(what, mend="run again with --resume") from self._failure

    def _run(self) -> None:
        from tastemaker_training.studies.tuner import run_trials  # late: it imports Ray Tune

        try:
            run_trials(
                self._study,
                self._settings,
                self._home,
                num_workers=self._num_workers,
                num_trials=self._config.num_trials,
                concurrency=self._config.concurrency,
            )
        except Exception as error:  # noqa: BLE001 (`follow` raises it)
            self._failure = error
