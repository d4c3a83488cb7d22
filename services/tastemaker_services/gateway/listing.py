"""Lists by one stage's own order: what is like an item, and what fits a text. Hard rules apply; nothing is ranked.

They are no decisions: nobody's list was chosen, so nothing is logged of them.
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np

from tastemaker.types import Query
from tastemaker_services.gateway.answers import FITS_TEXT, LIKE
from tastemaker_services.gateway.assigning import OUTSIDE
from tastemaker_services.gateway.gateway import Gateway
from tastemaker_services.gateway.pins import Pin
from tastemaker_services.gateway.records import body_of
from tastemaker_services.gateway.run import Run
from tastemaker_services.web.problems import Problem
from tastemaker_services.web.question_schema import SearchRequest, SimilarRequest
from tastemaker_services.web.schema import RecommendationRequest


class Listing:
    """Makes such lists. For one event loop.

    Args:
        gateway: Reads users, and asks stages under the request's deadline.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def similar(self, asked: SimilarRequest) -> dict[str, Any]:
        """The items most like `asked.item_id`; what trends, where the stage does not answer.

        Raises:
            Problem: 404 for an unknown item; 503 before the first bundle is ready.
        """
        run = self._gateway.run(None)
        pin, query = await self._query(run, asked)
        row = pin.face.row_of(asked.item_id)
        if row is None:
            detail = f"item_id {asked.item_id[:60]!r} is not in the catalogue: correct it"
            raise Problem(404, "unknown-item", detail, field="item_id")
        query = replace(query, exclude=np.append(query.exclude, np.int32(row)))
        items = await self._gateway.nearest(run, pin, query, "similar", (row,), LIKE)
        return self._ended(run, pin, items)

    async def search(self, asked: SearchRequest) -> dict[str, Any]:
        """The items that fit `asked.q` best; what trends, where the stage does not answer.

        Raises:
            Problem: 409 where the bundle cannot read texts; 503 before the first bundle is ready.
        """
        run = self._gateway.run(None)
        pin, query = await self._query(run, asked)
        if pin.face.content_fingerprint is None:
            detail = (
                f"bundle {pin.face.bundle_id} has no content vectors, which search by text needs: "
                "train and publish with source content"
            )
            raise Problem(409, "no-content-space", detail, field="q")
        rest = asked.q, asked.personal if asked.user_id else 0.0
        return self._ended(run, pin, await self._gateway.nearest(run, pin, query, "search", rest, FITS_TEXT))

    async def _query(self, run: Run, asked: SimilarRequest | SearchRequest) -> tuple[Pin, Query]:
        """The pinned bundle, and the hard rules in its rows."""
        questions = self._gateway.questions
        pin, _ = questions.pinned(run, OUTSIDE)
        request = RecommendationRequest(
            user_id=asked.user_id or "-", k=asked.k, context=asked.context, exclude=asked.exclude,
            filters=asked.filters,
        )  # fmt: skip
        with run.stage("history"):
            user = await questions.reader(run, request.user_id, asked.user_id is not None)
        return pin, questions.query(run, request, user, pin.face, now_ms=time.time_ns() // 1_000_000)

    def _ended(self, run: Run, pin: Pin, items: list[dict[str, Any]]) -> dict[str, Any]:
        run.end()
        return body_of(run, pin, items)
