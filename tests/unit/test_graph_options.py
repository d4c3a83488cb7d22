"""What Serve is told of the deployments, and what becomes of a call that it refuses."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tastemaker.config import Settings
from tastemaker.config_serving import ReplicaSettings, ServingSettings
from tastemaker.errors import ConfigError
from tastemaker_services.replicas.calls import StageCalls, StageError

pytestmark = [  # of Ray's own modules
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def deployment(replicas: ReplicaSettings) -> Any:
    from ray import serve

    from tastemaker_services.graph.deployments import options

    return serve.deployment(type("Stage", (), {}), **options(replicas))


def test_one_process_of_each_is_the_default_and_a_gateway_holds_more_than_it_admits() -> None:
    settings = Settings()
    for name in ("gateway", "retriever", "ranker", "reranker"):
        made = deployment(getattr(settings.serving, name))
        assert (made.num_replicas, made._deployment_config.autoscaling_config) == (1, None)
    gateway = deployment(settings.serving.gateway)
    assert gateway.max_ongoing_requests > settings.gateway.shedding.max_in_flight
    assert gateway.max_queued_requests == -1  # Serve never refuses what the gateway would answer
    assert deployment(settings.serving.ranker).max_queued_requests == 64


def test_what_is_said_of_the_gateway_leaves_its_other_defaults() -> None:
    said = ServingSettings.model_validate({"gateway": {"replicas": 2}}).gateway
    assert said == ServingSettings().gateway.model_copy(update={"replicas": 2})
    assert deployment(said).num_replicas == 2
    assert deployment(said).max_ongoing_requests == 1000


def test_more_processes_by_number_or_by_load() -> None:
    assert deployment(ReplicaSettings(replicas=3)).num_replicas == 3
    scaled = deployment(ReplicaSettings(replicas=2, max_replicas=6, target_ongoing_requests=0.5))
    config = scaled._deployment_config.autoscaling_config
    assert (config.min_replicas, config.max_replicas) == (2, 6)
    assert config.get_target_ongoing_requests() == 0.5
    assert (config.upscale_delay_s, config.downscale_delay_s) == (10.0, 300.0)


def test_fewer_at_most_than_at_least_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_replicas of at least replicas, which is 3"):
        ServingSettings.parse({"ranker": {"replicas": 3, "max_replicas": 2}}, "test")


def test_what_serve_refuses_under_back_pressure_is_a_stages_failure() -> None:
    from ray.serve.exceptions import BackPressureError

    async def refuse(_: list[Any]) -> Sequence[Any]:
        raise BackPressureError(num_queued_requests=64, max_queued_requests=64)

    with pytest.raises(StageError, match="BackPressureError"):
        asyncio.run(StageCalls(refuse)(1, 1.0))
