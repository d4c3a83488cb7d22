"""How the routes of `/admin/v1` answer: to whom they may, and every error of ours as a problem."""

from collections.abc import Awaitable, Callable

from fastapi import Request, Response

from tastemaker.errors import TastemakerError
from tastemaker_services.web.access import Access
from tastemaker_services.web.problems import Problem

Told = Callable[[TastemakerError], Problem | None]


async def admin_answer(
    access: Access, request: Request, answer: Callable[[], Awaitable[Response]], told: Told = lambda _: None
) -> Response:
    """What `answer` gives, to a caller who has the scope admin.

    Args:
        access: Who may.
        request: Whose key is looked at first.
        answer: Does what is asked.
        told: The problem that an error is to the caller; None where it is none of theirs, which is then a 503 to be tried again.
    """
    try:
        access.scopes(request.headers.get("authorization"), "admin")
        return await answer()
    except Problem as problem:
        return problem.response()
    except TastemakerError as error:
        unavailable = Problem(503, "unavailable", str(error), headers={"retry-after": "1"})
        return (told(error) or unavailable).response()
