"""`GET /admin/v1/experiments/{name}/report` and `/admin/v1/holdout/report`: what experiments say so far, as JSON or as a page.

Made anew from the Parquet days for each request, in a thread and one at a time: it may take seconds of a core.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from fastapi import FastAPI, Request, Response

from tastemaker.errors import ConfigError, DataError, ExperimentError, TastemakerError, UnknownExperimentError
from tastemaker.experiments.holdout import HoldoutStore
from tastemaker.experiments.metrics import metric_of
from tastemaker.experiments.reporting.head import with_stop
from tastemaker.experiments.reporting.held_out import DEFAULT_METRIC, build_holdout_report
from tastemaker.experiments.reporting.interleaved import build_interleaving_report
from tastemaker.experiments.reporting.interleaved_page import render_interleaving
from tastemaker.experiments.reporting.page import render
from tastemaker.experiments.reporting.report import build_report
from tastemaker.experiments.starting import check_credit
from tastemaker.experiments.store import ExperimentStore
from tastemaker.home import Home
from tastemaker.state.keys import Keys
from tastemaker.strict import Strict
from tastemaker_services.admin.answers import admin_answer
from tastemaker_services.admin.experiments import HOLDOUT_PATH, PATH
from tastemaker_services.web.access import Access
from tastemaker_services.web.openapi import problems
from tastemaker_services.web.problems import Problem, invalid

if TYPE_CHECKING:
    import redis

R = TypeVar("R", bound=Strict)
LEVELS: Final = (0.5, 0.9999)
"""Least and greatest of the intervals."""


class ReportAdmin:
    """The route of one catalogue.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        home: Holds the days.
        access: Who may.
    """

    def __init__(self, client: "redis.Redis", keys: Keys, home: Home, access: Access) -> None:
        self._store, self._catalogue = ExperimentStore(client, keys), keys.catalogue
        self._holdout = HoldoutStore(client, keys)
        self._home, self._access = home, access
        self._turn = asyncio.Lock()

    def add_to(self, admin: FastAPI) -> None:
        """Adds it."""
        refused = (401, 403, 409, 422, 503)
        admin.get(PATH + "/{name}/report", responses=problems(*refused, 404))(self.report)
        admin.get(HOLDOUT_PATH + "/report", responses=problems(*refused))(self.holdout)

    async def report(
        self, request: Request, name: str, metric: str = "", level: str = "0.95", format: str = "json"
    ) -> Response:
        """The report: `metric` to be judged by, `level` of intervals, `format` json or html."""
        return await self._answer(request, metric, level, format, partial(self._made, name))

    async def holdout(
        self,
        request: Request,
        metric: str = "",
        level: str = "0.95",
        origin: str = "live",
        format: str = "json",
    ) -> Response:
        """What all experiments together do: users outside of the holdout against those in it."""
        return await self._answer(request, metric, level, format, partial(self._of_holdout, origin))

    async def _answer(
        self,
        request: Request,
        metric: str,
        level: str,
        form: str,
        made: Callable[[str | None, float, str], Response],
    ) -> Response:
        async def answer() -> Response:
            if form not in ("json", "html"):
                raise invalid("format", f"format is {form!r}, must be json or html: correct it")
            wanted, of = _level(level), _named(metric, metric_of)
            async with self._turn:
                return await asyncio.to_thread(made, of, wanted, form)

        return await admin_answer(self._access, request, answer, _told)

    def _of_holdout(self, origin: str, metric: str | None, level: float, form: str) -> Response:
        if origin not in ("live", "simulator"):
            raise invalid("origin", f"origin is {origin!r}, must be live or simulator: correct it")
        kept, since_ms = self._holdout.get(), self._holdout.since_ms()
        found = build_holdout_report(
            self._home, self._catalogue, kept, since_ms, metric or DEFAULT_METRIC,
            origin="live" if origin == "live" else "simulator", level=level, now_ms=time.time_ns() // 1_000_000,
        )  # fmt: skip
        return _response(found, render, form)

    def _made(self, name: str, metric: str | None, level: float, form: str) -> Response:
        experiment, now_ms = self._store.get(name), time.time_ns() // 1_000_000
        history = self._store.history(name)
        if experiment.interleaves:
            _named(metric, check_credit)
            duel = build_interleaving_report(
                self._home, self._catalogue, experiment, metric, level=level, now_ms=now_ms
            )
            return _response(with_stop(duel, history), render_interleaving, form)
        found = build_report(self._home, self._catalogue, experiment, metric, level=level, now_ms=now_ms)
        return _response(with_stop(found, history), render, form)


def _response(found: R, page: Callable[[R], str], form: str) -> Response:
    if form == "html":
        return Response(page(found), media_type="text/html; charset=utf-8")
    return Response(found.model_dump_json(), media_type="application/json")


def _named(metric: str | None, check: Callable[[str], object]) -> str | None:
    """The metric that the request names, checked; None where it names none."""
    if not metric:
        return None
    try:
        check(metric)
    except ConfigError as error:
        raise invalid("metric", str(error)) from error
    return metric


def _told(error: TastemakerError) -> Problem | None:
    match error:
        case UnknownExperimentError():
            return Problem(404, "unknown-experiment", str(error), field="name")
        case ConfigError() | ExperimentError() | DataError():  # of what is kept: the request was checked
            return Problem(409, "no-report", str(error))
    return None


def _level(text: str) -> float:
    try:
        level = float(text)
    except ValueError:
        level = 0.0
    if not LEVELS[0] <= level <= LEVELS[1]:
        raise invalid("level", f"level is {text!r}, must be from {LEVELS[0]} to {LEVELS[1]}: correct it")
    return level
