"""The renders that the checks look at; they need `make tools`."""

from pathlib import Path

import pytest
from chart.objects import Object
from chart.rendering import TOOLS, Case, ci_cases, objects_of, random_cases


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder is of `make chart-test`."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.chart)


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    """Says how to get the tools, where they are missing."""
    assert (TOOLS / "helm").exists(), "run `make tools` first"


@pytest.fixture(params=[*ci_cases(), *random_cases()], ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    """Each ci file and each random combination of switches."""
    return request.param


@pytest.fixture
def objects(case: Case) -> tuple[Object, ...]:
    """What the case renders."""
    return objects_of(case)
