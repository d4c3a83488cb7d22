"""Simulated visitors at a steady pace, few enough that a small machine stays sound, who click by a rule that is known.

They believe the ranker: an item of the first place is clicked as often as its score says, each place further down is looked at less, and
variants that are named have a part of the clicks. Not the simulated world of `tastemaker simulate`, whose visitors come as fast as they can.
"""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import httpx

_LOOKED_AT: Final = 0.85
"""Of the places above, how many are followed by a look at the next."""
_HEADERS: Final = {"x-tastemaker-origin": "simulator"}


@dataclass
class Visitors:
    """Users of the demo's table, one request after the other.

    Args:
        gateway: Where they ask.
        each_second: Requests.
        liking: Variant -> part of the clicks that its lists get; 1 where it is not named.
        num_users: Whose ids are 1 to that number.
    """

    gateway: str
    each_second: float
    liking: Mapping[str, float]
    num_users: int = 600
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    def come(self, seconds: float) -> None:
        """They do so for some time; who is not answered goes away."""
        end = next_at = time.monotonic()
        end += seconds
        with httpx.Client(base_url=self.gateway, timeout=10, headers=_HEADERS) as client:
            while (now := time.monotonic()) < end:
                time.sleep(max(0.0, next_at - now))
                next_at = max(next_at + 1 / self.each_second, now)
                try:
                    self._visit(client)
                except (httpx.HTTPError, ValueError):
                    continue

    def _visit(self, client: httpx.Client) -> None:
        user = str(self._random.randint(1, self.num_users))
        answer = client.post("/v1/recommendations", json={"user_id": user, "k": 10})
        if answer.status_code == httpx.codes.OK:
            client.post("/v1/events", json={"events": self.events(user, answer.json())})

    def events(self, user: str, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Impressions of all places and some clicks."""
        shares = [self.liking.get(one["variant"], 1.0) for one in answer.get("assignments", [])]
        liking = min(shares, default=1.0)
        kinds = [("impression", place, item) for place, item in enumerate(answer["items"])]
        kinds += [
            ("click", place, item)
            for place, item in enumerate(answer["items"])
            if self._random.random() < click_rate(item["score"], place) * liking
        ]
        now_ms = time.time_ns() // 1_000_000
        return [
            {
                "event_id": str(uuid4()), "user_id": user, "item_id": item["item_id"], "kind": kind, "position": place,
                "timestamp_ms": now_ms, "request_id": answer["request_id"], "origin": "simulator",
            }
            for kind, place, item in kinds
        ]  # fmt: skip


def click_rate(score: float, place: int) -> float:
    """How often an item is clicked in a place, from 0, of a list that is fully liked.

    >>> click_rate(0.5, 0), round(click_rate(0.5, 2), 3), click_rate(-3.0, 0)
    (0.5, 0.361, 0.0)
    """
    return min(max(score, 0.0), 1.0) * _LOOKED_AT**place
