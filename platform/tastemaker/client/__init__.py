"""A typed client of the gateway's `/v1`, for services that ask for lists and send events.

>>> from tastemaker.client import Client, Event
>>> with Client("http://127.0.0.1:8700") as client:  # doctest: +SKIP
...     answer = client.recommend("u7", k=3)
...     client.send_events([Event("u7", answer.items[0].item_id, "click", request_id=answer.request_id)])

Imports nothing but httpx and pydantic, in a fraction of a second. See `docs/clients.md`.
"""

from tastemaker.client.answers import (
    Erasure,
    ErasureNoted,
    EventsTaken,
    Explanation,
    ItemDeleted,
    ItemsTaken,
    ListExplanation,
    Recommendations,
    Recommended,
    Rejected,
    ScoreContributions,
    UserKept,
    UsersMerged,
    UsersTaken,
)
from tastemaker.client.asynchronous import AsyncClient
from tastemaker.client.errors import (
    AnswerError,
    ClientError,
    ConflictError,
    InvalidRequestError,
    LateError,
    NotFoundError,
    OverloadedError,
    ServerError,
    UnauthorizedError,
    UnreachableError,
    UnreadableAnswerError,
)
from tastemaker.client.questions import Event, RecommendOptions, RuleOptions, SearchOptions
from tastemaker.client.retries import Retries
from tastemaker.client.synchronous import Client

__all__ = [
    "AnswerError", "AsyncClient", "Client", "ClientError", "ConflictError", "Erasure", "ErasureNoted", "Event",
    "EventsTaken", "Explanation", "InvalidRequestError", "ItemDeleted", "ItemsTaken", "LateError",
    "ListExplanation", "NotFoundError", "OverloadedError", "RecommendOptions", "Recommendations", "Recommended",
    "Rejected", "Retries", "RuleOptions", "ScoreContributions", "SearchOptions", "ServerError", "UnauthorizedError",
    "UnreachableError", "UnreadableAnswerError", "UserKept", "UsersMerged", "UsersTaken",
]  # fmt: skip
