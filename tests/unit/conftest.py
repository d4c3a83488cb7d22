"""Fixtures that several files share."""

from collections.abc import Iterator

import pytest


@pytest.fixture(params=[False, True], ids=["by stage", "through"], scope="module")
def either_graph(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whether the graph calls each stage, or can go through them all: nobody who asks can tell, but by the wait among the timings."""
    from ladder_world import Ladder

    Ladder.goes_through = request.param
    yield
    Ladder.goes_through = False
