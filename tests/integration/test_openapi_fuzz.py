"""Requests drawn from the OpenAPI document, good ones and bad, against a gateway's real routes: none is a fault of ours."""

from collections.abc import Iterator

import pytest
import schemathesis
from gateway_process import Backend, listening
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

from tastemaker.config_serving import GatewaySettings
from tastemaker_services.admin.listener import gateway_openapi

pytestmark = pytest.mark.slow
OPERATIONS = {
    operation.ok().label: operation.ok()
    for operation in schemathesis.openapi.from_dict(gateway_openapi(GatewaySettings())).get_all_operations()
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening(Backend()) as address:
        yield address


@pytest.mark.parametrize("label", OPERATIONS)
def test_no_request_of_the_document_is_a_fault(label: str, url: str) -> None:
    operation = OPERATIONS[label]
    good = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    bad = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @given(st.one_of(good, bad))
    @settings(
        max_examples=40, deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.large_base_example],
    )  # fmt: skip
    def ask(case: schemathesis.Case) -> None:
        response = case.call(base_url=url, timeout=60)
        assert response.status_code < 500, response.text
        if response.status_code >= 400 and case.method != "HEAD":
            assert response.headers["content-type"][0] == "application/problem+json"
            assert response.json()["detail"]
            if response.status_code in (413, 415, 422):
                assert response.json()["field"]

    ask()
