"""The graph under test, started at the first of these tests and stopped after the last."""

from collections.abc import Iterator

import httpx
import psutil
import pytest
from histories import put_histories
from served_graph import (
    Running,
    assert_gone,
    write_bundle,
)

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.config_serving import GatewaySettings
from tastemaker.home import Home
from tastemaker.registry.client import Registry
from tastemaker.stages.pipeline import Pipeline
from tastemaker.state.connection import open_state
from tastemaker.state.keys import Keys
from tastemaker_services.app import start


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    others = set(psutil.Process().children(recursive=True))  # of other tests' fixtures
    home = Home.make(tmp_path_factory.mktemp("serving") / "home")
    # A deadline that a busy machine keeps too: fallbacks have tests of their own.
    settings = Settings(
        home=home.root,
        gateway=GatewaySettings(port=0, admin_port=0, deadline_ms=10_000.0, features_share=1.0),
    )
    store = BundleStore.of(settings, home)
    registry = Registry(settings, home)
    pipelines = {}
    for seed, alias in enumerate(("champion", "challenger")):
        ref = write_bundle(store, settings.catalogue, seed)
        version = registry.publish(settings.catalogue, ref, {})
        registry.set_alias(settings.catalogue, alias, version.number, "test", "first release")
        pipelines[ref.bundle_id] = Pipeline.from_bundle(Bundle.open(store, ref))
    with open_state(settings, home) as client:
        keys = Keys(settings.catalogue, settings.state.partitions)
        put_histories(client, keys, {"known": ["é/5", "é/7", "é/9"]})
    serving = start(settings, home)
    children = [child for child in psutil.Process().children(recursive=True) if child not in others]
    with httpx.Client(base_url=serving.url, trust_env=False, timeout=20.0) as http:
        yield Running(serving, home, settings, http, pipelines, registry)
    serving.stop()
    serving.stop()  # again: nothing to do
    assert_gone(children)
    assert not (home / "run" / "serving.json").exists()
