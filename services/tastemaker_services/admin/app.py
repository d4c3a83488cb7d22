"""The whole application of those who run the platform: every group of routes of `/admin/v1` on the admin listener."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI

from tastemaker.config import Settings
from tastemaker.home import Home
from tastemaker.registry.overview import read_overview
from tastemaker.state.keys import Keys
from tastemaker_services.admin.experiment_report import ReportAdmin
from tastemaker_services.admin.experiments import ExperimentAdmin
from tastemaker_services.admin.ladder import LadderAdmin
from tastemaker_services.admin.listener import OurMetrics, create_admin
from tastemaker_services.admin.promotions import PromotionsAdmin
from tastemaker_services.admin.versions import add_versions
from tastemaker_services.web.access import Access

if TYPE_CHECKING:
    import redis

    from tastemaker.registry.client import Registry
    from tastemaker.registry.live import Watcher


@dataclass(frozen=True, slots=True)
class Administered:
    """What the routes look at and change. `metrics_folder` is where processes keep the metrics that /metrics sums."""

    settings: Settings
    home: Home
    client: "redis.Redis"
    keys: Keys
    registry: "Registry"
    watcher: "Watcher"
    metrics_folder: Path


def administration(of: Administered) -> FastAPI:
    """The application."""
    gateway, client, keys = of.settings.gateway, of.client, of.keys
    app = create_admin(gateway, of.metrics_folder)
    access, metrics = Access(gateway.keys), OurMetrics(of.metrics_folder).collect
    ExperimentAdmin(client, keys, access).add_to(app)
    ReportAdmin(client, keys, of.home, access).add_to(app)
    LadderAdmin(client, keys, access, metrics).add_to(app)
    PromotionsAdmin(of.registry, of.settings.catalogue, access, of.watcher.poll).add_to(app)
    add_versions(app, access, partial(read_overview, client, keys))
    return app
