"""The Ray Serve graph: gateway -> retriever, ranker, reranker; each deployment wraps a plain class."""

from ray import serve

from tastemaker.config import Settings
from tastemaker_services.ingress import GatewayReplica
from tastemaker_services.replicas import Ranker, Reranker, Retriever

APP_NAME = "tastemaker"
NUM_CPUS = 0.1
"""Logical CPUs of a replica: it mostly waits, and Ray only counts them."""


def build_graph(settings: Settings) -> serve.Application:
    """The application to run. Every process opens state and bundles by `settings`, its paths absolute."""
    stage = {
        "ray_actor_options": {"num_cpus": NUM_CPUS},
        "max_ongoing_requests": 16,
        "graceful_shutdown_timeout_s": 2.0,
        "graceful_shutdown_wait_loop_s": 0.1,
        "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
    }
    stages = [serve.deployment(kind, **stage).bind(settings) for kind in (Retriever, Ranker, Reranker)]
    ingress = serve.deployment(serve.ingress()(GatewayReplica), **stage | {"max_ongoing_requests": 1000})
    return ingress.options(name="Gateway").bind(settings, *stages)
