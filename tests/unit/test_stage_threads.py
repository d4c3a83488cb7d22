"""Which thread of a stage's process does what: requests wait for one, and not for the other."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np

from tastemaker.types import Query
from tastemaker_services.replicas.stages import Ranker


class Stub(Ranker):
    """Of one version, whose pipeline says which thread asks it."""

    def __init__(self) -> None:
        self._pool, self._aside = (
            ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("ranker", "ranker-aside")
        )
        self._tracer = None

        def named(*_: Any) -> str:
            return threading.current_thread().name.rpartition("_")[0]

        version = SimpleNamespace(pipeline=SimpleNamespace(contributions=named))
        self._versions: Any = {"sha": version}


def test_no_request_waits_for_an_explanation() -> None:
    ranker = Stub()
    query = Query(np.empty(0, np.int32))
    try:
        assert asyncio.run(ranker.contributions([("sha", query, None, 3)])) == ["ranker-aside"]  # type: ignore[list-item,comparison-overlap]
    finally:
        ranker._pool.shutdown()
        ranker._aside.shutdown()
