"""The graph as a cluster imports it: `import_path: tastemaker_services.cluster_graph:graph` of a RayService's serve config.

The settings are those of the pod that builds it (`TASTEMAKER_CONFIG`), and every replica gets them: state and bundles are
reached by addresses, the home is scratch.
"""

from ray import serve

from tastemaker.config_sources import load_settings
from tastemaker.errors import ConfigError
from tastemaker_services.graph.deployments import build_graph
from tastemaker_services.web.access import check_exposure


def graph(_arguments: dict[str, str]) -> serve.Application:
    """The application that the settings of this process describe.

    Raises:
        ConfigError: State is the embedded server, which other pods cannot reach, or the gateway would listen without keys.
    """
    settings = load_settings()
    if settings.state.url is None:
        raise ConfigError(
            "state.url is empty", limit="the URL of a Redis/Valkey that every pod reaches",
            mend="set it: a cluster has no embedded server",
        )  # fmt: skip
    check_exposure(settings.gateway)
    return build_graph(settings)
