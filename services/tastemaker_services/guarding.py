"""Looks at running experiments' guardrails and splits again and again, and stops what breaks a guardrail.

Looking often is safe: the intervals hold at every look. One process of a home looks at a time, under a lock; it takes at most
a twentieth of its time, however large the days have become.
"""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Final

from tastemaker import telemetry
from tastemaker.config import Settings
from tastemaker.errors import ExperimentError, TastemakerError, UsageError
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.guardrails import GuardrailReport, breached, check_guardrails
from tastemaker.experiments.metrics import METRICS
from tastemaker.experiments.observations import Observations, read_observations
from tastemaker.experiments.srm import srm_draws
from tastemaker.experiments.store import ExperimentStore
from tastemaker.experiments.weighing import Weighing
from tastemaker.home import Home
from tastemaker.state.connection import connect, url_of
from tastemaker.state.keys import Keys

ACTOR: Final = "guardrail"
"""Who stopped an experiment, in its history."""
_LEVEL: Final = 0.95
_REST: Final = 20.0
"""How many times longer than a look took nobody looks again."""
log = logging.getLogger(__name__)


class Guard:
    """Looks every `experiments.guardrail_seconds` in a thread of its own."""

    def __init__(self, settings: Settings, home: Home) -> None:
        self._home, self._catalogue = home, settings.catalogue
        self._seconds = settings.experiments.guardrail_seconds
        client = connect(url_of(settings, home))
        self._store = ExperimentStore(client, Keys(settings.catalogue, settings.state.partitions))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="guard")

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it; a look that is under way is not waited for longer than ten seconds."""
        self._stopped.set()
        self._thread.join(timeout=10.0)

    def look(self, now_ms: int) -> list[str]:
        """Looks at every running experiment once; gives the names of those that it stopped.

        Raises:
            UsageError: Another process looks.
            StateError: Redis/Valkey cannot be reached.
        """
        with self._home.lock("guardrails"):
            running = [one for one in self._store.list() if one.state == "running"]
            return [one.name for one in running if self._look_at(one, now_ms)]

    def _look_at(self, experiment: Experiment, now_ms: int) -> bool:
        """Whether it was stopped."""
        try:
            seen = read_observations(
                self._home, self._catalogue, experiment, now_ms, with_past=_past(experiment)
            )
        except ExperimentError:
            return False  # nothing has happened yet
        except TastemakerError as error:
            log.warning("cannot look at experiment %s: %s", experiment.name, error)
            return False
        self._tell_split(experiment, seen)
        try:
            reports = check_guardrails(seen, Weighing(experiment, _LEVEL, num_items=1))
        except ExperimentError as error:
            log.warning("cannot check the guardrails of experiment %s: %s", experiment.name, error)
            return False
        self._tell_guardrails(experiment, reports)
        broken = breached(reports)
        if broken:
            reason = "; ".join(one.reason for one in broken)
            self._store.stop(experiment.name, actor=ACTOR, reason=reason)
            telemetry.GUARDRAIL_STOPS.labels(self._catalogue, experiment.name).inc()
            log.warning("experiment %s is stopped by a guardrail: %s", experiment.name, reason)
        return bool(broken)

    def _tell_split(self, experiment: Experiment, seen: Observations) -> None:
        first = seen.first_exposures()
        split = srm_draws(seen.variant_R[first], seen.propensity_RV[first])
        telemetry.SRM.labels(self._catalogue, experiment.name).set(split.always_valid_p_value)

    def _tell_guardrails(self, experiment: Experiment, reports: Sequence[GuardrailReport]) -> None:
        for state in ("kept", "open", "breached"):
            number = sum(report.state == state for report in reports)
            telemetry.GUARDRAILS.labels(self._catalogue, experiment.name, state).set(number)

    def _run(self) -> None:
        rest = self._seconds
        while not self._stopped.wait(rest):
            began = time.monotonic()
            try:
                self.look(time.time_ns() // 1_000_000)
            except UsageError:
                pass  # another process is at it
            except TastemakerError as error:
                log.warning("cannot look at guardrails for now: %s", error)
            except Exception:
                log.exception("a look at guardrails has failed; the next one tries again")
            rest = max(self._seconds, _REST * (time.monotonic() - began))


def _past(experiment: Experiment) -> bool:
    """Whether a guardrail needs what was before the experiment."""
    return any(
        one.metric in METRICS and METRICS[one.metric].measure == "tail items" for one in experiment.guardrails
    )
