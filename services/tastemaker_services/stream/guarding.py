"""Looks at running experiments' guardrails and splits again and again, and stops what breaks a guardrail.

Looking often is safe: the intervals hold at every look. One process of a home looks at a time, under a lock; it takes at most
a twentieth of its time, however large the days have become.
"""

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from prometheus_client import Gauge

from tastemaker import telemetry
from tastemaker.config import Settings
from tastemaker.errors import NothingYetError, TastemakerError, UsageError
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.metrics import METRICS, metric_of
from tastemaker.experiments.reporting.advice import VERDICTS, Advice, advise
from tastemaker.experiments.reporting.comparisons import Interval, MetricReport, compare
from tastemaker.experiments.reporting.guardrails import GuardrailReport, breached, check_guardrails
from tastemaker.experiments.reporting.interleaved import build_interleaving_report
from tastemaker.experiments.reporting.observations import Observations, read_observations
from tastemaker.experiments.reporting.weighing import Weighing
from tastemaker.experiments.statistics.srm import Srm, srm_draws
from tastemaker.experiments.store import ExperimentStore
from tastemaker.home import Home
from tastemaker.state.connection import connect, url_of
from tastemaker.state.keys import Keys

ACTOR: Final = "guardrail"
"""Who stopped an experiment, in its history."""
_LEVEL: Final = 0.95
_SHOWN: Final = ("clicks_per_impression", "conversion", "rewarded_requests", "revenue")
"""Metrics that are told of every experiment, beside its own."""
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

        None are looked at while another process does.

        Raises:
            StateError: Redis/Valkey cannot be reached.
        """
        with ExitStack() as held:
            try:
                held.enter_context(self._home.lock("guardrails"))
            except UsageError:  # another process is at it
                return []
            running = [one for one in self._store.list() if one.state == "running"]
            return [one.name for one in running if self._look_at(one, now_ms)]

    def _look_at(self, experiment: Experiment, now_ms: int) -> bool:
        """Whether it was stopped."""
        if experiment.interleaves:
            self._tell_preference(experiment, now_ms)
            return False
        try:
            seen = read_observations(
                self._home, self._catalogue, experiment, now_ms, with_past=_past(experiment)
            )
        except NothingYetError:
            return False
        except TastemakerError as error:
            log.warning("cannot look at experiment %s: %s", experiment.name, error)
            return False
        split = self._tell_split(experiment, seen)
        weighing = Weighing(experiment, _LEVEL, num_items=1)
        try:
            reports = check_guardrails(seen, weighing)
        except TastemakerError as error:
            log.warning("cannot check the guardrails of experiment %s: %s", experiment.name, error)
            return False
        self._tell_guardrails(experiment, reports)
        broken = breached(reports)
        if broken:
            reason = "; ".join(one.reason for one in broken)
            self._store.stop(experiment.name, actor=ACTOR, reason=reason)
            telemetry.GUARDRAIL_STOPS.labels(self._catalogue, experiment.name).inc()
            log.warning("experiment %s is stopped by a guardrail: %s", experiment.name, reason)
        try:
            self._tell_metrics(experiment, seen, weighing, reports, split)
        except TastemakerError as error:
            log.warning("cannot tell the metrics of experiment %s: %s", experiment.name, error)
        return bool(broken)

    def _tell_preference(self, experiment: Experiment, now_ms: int) -> None:
        """An interleaving has no guardrails: whom people prefer is told, and what to do."""
        try:
            report = build_interleaving_report(self._home, self._catalogue, experiment, now_ms=now_ms)
        except NothingYetError:
            return
        except TastemakerError as error:
            log.warning("cannot look at experiment %s: %s", experiment.name, error)
            return
        labels = experiment.name, experiment.variant_names[1]
        self._tell(telemetry.EXPERIMENT_PREFERENCE, labels, report.always_valid)
        self._tell_advice(experiment, report.advice)

    def _tell_advice(self, experiment: Experiment, advice: Advice) -> None:
        for verdict in VERDICTS:
            told = telemetry.EXPERIMENT_ADVICE.labels(self._catalogue, experiment.name, verdict)
            told.set(verdict == advice.verdict)

    def _tell_split(self, experiment: Experiment, seen: Observations) -> Srm:
        first = seen.first_exposures()
        split = srm_draws(seen.variant_R[first], seen.propensity_RV[first])
        telemetry.SRM.labels(self._catalogue, experiment.name).set(split.always_valid_p_value)
        return split

    def _tell_guardrails(self, experiment: Experiment, reports: Sequence[GuardrailReport]) -> None:
        for state in ("kept", "open", "breached"):
            number = sum(report.state == state for report in reports)
            telemetry.GUARDRAILS.labels(self._catalogue, experiment.name, state).set(number)

    def _tell_metrics(
        self,
        experiment: Experiment,
        seen: Observations,
        weighing: Weighing,
        guardrails: Sequence[GuardrailReport],
        split: Srm,
    ) -> None:
        """Each variant's figures, and what to do by them. What reads the whole catalogue is left to the report."""
        primary = metric_of(experiment.metric)
        shown = [primary, *(METRICS[name] for name in _SHOWN if name != primary.name)]
        found = [compare(seen, metric, weighing) for metric in shown if metric.kind != "variant"]
        for report in found:
            self._tell_metric(experiment, report)
        if primary.kind != "variant":
            advice = advise(
                found[0], guardrails, srm_alarm=split.alarm, level=_LEVEL, effect=weighing.effect(primary),
                ran_ms=int(seen.shown_ms_R.max() - seen.shown_ms_R.min()), units=seen.num_units(),
            )  # fmt: skip
            self._tell_advice(experiment, advice)

    def _tell_metric(self, experiment: Experiment, report: MetricReport) -> None:
        for variant, value in zip(experiment.variant_names, report.values, strict=True):
            self._tell(telemetry.EXPERIMENT_METRIC, (experiment.name, variant, report.name), value)
        for one in report.comparisons:
            self._tell(
                telemetry.EXPERIMENT_LIFT, (experiment.name, one.variant, report.name), one.always_valid
            )

    def _tell(self, gauge: Gauge, labels: tuple[str, ...], found: Interval) -> None:
        for bound, value in found.model_dump().items():
            if value is not None:
                gauge.labels(self._catalogue, *labels, bound).set(value)

    def _run(self) -> None:
        rest = self._seconds
        while not self._stopped.wait(rest):
            began = time.monotonic()
            try:
                self.look(time.time_ns() // 1_000_000)
            except TastemakerError as error:
                log.warning("cannot look at guardrails for now: %s", error)
            except Exception:
                log.exception("a look at guardrails has failed; the next one tries again")
            rest = max(self._seconds, _REST * (time.monotonic() - began))


def _past(experiment: Experiment) -> bool:
    """Whether a guardrail or the experiment's own metric needs what was before it."""
    names = [experiment.metric, *(one.metric for one in experiment.guardrails)]
    return any(name in METRICS and METRICS[name].measure == "tail items" for name in names)
