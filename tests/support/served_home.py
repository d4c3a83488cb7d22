"""A small home whose trained and published bundles are promoted, served and asked."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
from small import SmallHome

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.config_serving import GatewaySettings
from tastemaker.home import Home
from tastemaker.registry.client import Registry


class ServedHome(SmallHome):
    """The catalogue, imported. `published` is what `tastemaker publish --json` says."""

    @property
    def settings(self) -> Settings:
        # A deadline that a busy machine keeps too.
        return Settings(home=self.home, gateway=GatewaySettings(port=0, admin_port=0, deadline_ms=10_000.0))

    def open_bundle(self, published: Mapping[str, Any]) -> Bundle:
        return Bundle.open(BundleStore.of(self.settings, Home.open(self.home)), published["uri"])

    def promote(self, published: Mapping[str, Any]) -> None:
        """Makes it the champion, past all gates."""
        registry = Registry(self.settings, Home.open(self.home))
        registry.set_alias("default", "champion", published["version"], "test", "to be tried")

    @contextmanager
    def answering(self) -> Iterator[httpx.Client]:
        """The gateway of the champion."""
        from tastemaker_services.app import start  # late: it imports Ray

        serving = start(self.settings, Home.open(self.home))
        try:
            with httpx.Client(base_url=serving.url, trust_env=False, timeout=20.0) as http:
                yield http
        finally:
            serving.stop()
