"""The Ray Serve graph: gateway -> retriever, ranker, reranker; each deployment wraps a plain class.

A fused graph is the gateway alone, whose process runs the stages.
"""

from typing import Any

from ray import serve

from tastemaker.config import Settings
from tastemaker.config_serving import ReplicaSettings
from tastemaker_services.graph.ingress import GatewayReplica
from tastemaker_services.replicas.shards import RetrieverShard
from tastemaker_services.replicas.stages import Ranker, Reranker, Retriever

APP_NAME = "tastemaker"
NUM_CPUS = 0.1
"""Logical CPUs of a replica: it mostly waits, and Ray only counts them."""
STOP_SECONDS = 8.0
"""In which a replica that is stopped ends its requests and writes what it has not written yet."""
HEALTH_SECONDS = 5.0
"""A replica that hangs is replaced after three checks that it leaves unanswered; Serve's own 10 and 30 take minutes."""


def build_graph(settings: Settings) -> serve.Application:
    """The application to run. Every process opens state and bundles by `settings`, its paths absolute."""
    stages = [*_retrievers(settings), *_others(settings)] if settings.serving.graph == "spread" else []
    ingress = serve.deployment(serve.ingress()(GatewayReplica), **options(settings.serving.gateway))
    return ingress.options(name="Gateway").bind(settings, *stages)


def _retrievers(settings: Settings) -> list[serve.Application]:
    """The retriever's deployment, or one for each shard of the catalogue."""
    replicas = settings.serving.retriever
    if replicas.shards == 1:
        return [serve.deployment(Retriever, **options(replicas)).bind(settings)]
    return [
        serve.deployment(RetrieverShard, name=f"Retriever-{number}", **options(replicas)).bind(
            settings, number
        )
        for number in range(replicas.shards)
    ]


def _others(settings: Settings) -> list[serve.Application]:
    ranker, reranker = settings.serving.ranker, settings.serving.reranker
    return [
        serve.deployment(Ranker, **options(ranker)).bind(settings),
        serve.deployment(Reranker, **options(reranker)).bind(settings),
    ]


def options(replicas: ReplicaSettings) -> dict[str, Any]:
    """What Serve is told of a deployment."""
    told = {
        "ray_actor_options": {"num_cpus": NUM_CPUS},
        "max_ongoing_requests": replicas.max_ongoing_requests,
        "max_queued_requests": replicas.max_queued_requests,
        "graceful_shutdown_timeout_s": STOP_SECONDS,
        "graceful_shutdown_wait_loop_s": 0.1,
        "health_check_period_s": HEALTH_SECONDS,
        "health_check_timeout_s": 2 * HEALTH_SECONDS,
        "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
    }
    if replicas.max_replicas is None:
        return told | {"num_replicas": replicas.replicas}
    scaling = {
        "min_replicas": replicas.replicas,
        "max_replicas": replicas.max_replicas,
        "target_ongoing_requests": replicas.target_ongoing_requests,
        "upscale_delay_s": replicas.upscale_delay_seconds,
        "downscale_delay_s": replicas.downscale_delay_seconds,
    }
    return told | {"autoscaling_config": scaling}
