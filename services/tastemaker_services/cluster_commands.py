"""`tastemaker cluster …`: what a cluster runs, each a process of its own. The graph itself is started by Ray, see `cluster_graph`."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker import context
from tastemaker.errors import ServingError
from tastemaker.terminal import console, errors, print_json, wait_for_interrupt

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tastemaker_services.ray_jobs import RayJobs

app = typer.Typer(help="What a cluster runs, each a process of its own.", no_args_is_help=True)
WATCH_SECONDS = 2.0
KEPT_JOBS = 3
"""What `start-job` keeps where it is not told: the chart tells it only where `jobs.historyLimit` is another number."""
Wait = Annotated[bool, typer.Option("--wait/--no-wait", hidden=True)]


@app.command("consumer")
def consumer(wait: Wait = True) -> str:
    """Apply events, do the chores beside it and look at guardrails; /metrics, /healthz and /readyz on exporter.port."""
    folder = _metrics_folder()
    from tastemaker.state.connection import open_keys, open_state
    from tastemaker_services.admin.exporter import create_exporter
    from tastemaker_services.stream.loop import StreamWorker

    settings = _settings()
    with open_state(settings, context.home()) as client:
        open_keys(client, settings)
    worker = StreamWorker(settings)
    worker.start()
    context.lifetime.callback(worker.stop)
    exporter = create_exporter(folder, worker.why_not_alive, worker.why_not_ready)
    return _listen(exporter, settings.exporter.host, settings.exporter.port, wait)


@app.command("exporter")
def exporter(wait: Wait = True) -> str:
    """Sum the metrics of this pod's processes: /metrics and /healthz on exporter.port."""
    folder = _metrics_folder()
    from tastemaker_services.admin.exporter import create_exporter

    settings = _settings()
    return _listen(create_exporter(folder), settings.exporter.host, settings.exporter.port, wait)


@app.command("admin")
def admin(wait: Wait = True) -> str:
    """Copy the registry's aliases to where replicas look, and answer /admin/v1, /docs and /metrics on gateway.admin_port."""
    folder = _metrics_folder()
    from tastemaker.registry.client import Registry
    from tastemaker.registry.live import Watcher
    from tastemaker.state.connection import open_keys, open_state
    from tastemaker_services.admin.app import Administered, administration
    from tastemaker_services.admin.gate_gauges import GatesTold
    from tastemaker_services.every import Every
    from tastemaker_services.web.access import check_exposure

    settings, home = _settings(), context.home()
    check_exposure(settings.gateway)
    client = context.lifetime.enter_context(open_state(settings, home))
    keys, registry = open_keys(client, settings), Registry(settings, home)
    watcher = Watcher(registry, client, keys)
    every = Every(WATCH_SECONDS, GatesTold(watcher, registry, settings.catalogue).poll, "registry-watcher")
    every.start()
    context.lifetime.callback(every.stop)
    app = administration(Administered(settings, home, client, keys, registry, watcher, folder))
    return _listen(app, settings.gateway.admin_host, settings.gateway.admin_port, wait)


@app.command("start-job")
def start_job(
    manifest: Annotated[Path, typer.Argument(help="A RayJob, YAML or JSON.")],
    wait: Annotated[bool, typer.Option(help="Return once the job has ended; 1 where it failed.")] = False,
    keep: Annotated[
        int, typer.Option(min=0, help="Delete what ended before, but for so many of its kind and release.")
    ] = KEPT_JOBS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it and show what would be sent.")] = False,
) -> dict[str, Any]:
    """Start a RayJob as this pod's service account, unless one of its kind is still under way."""
    from tastemaker_services.ray_jobs import RayJobs, read_manifest

    job = read_manifest(manifest)
    if dry_run:
        print_json(job)
        return job
    with RayJobs.of_this_pod() as jobs:
        if (running := jobs.unfinished(job)) is not None:
            console.print(f"nothing to do: {running} is under way", markup=False)
            return {"name": running, "started": False}
        name = jobs.start(job)
        console.print(f"started {name}", markup=False)
        _delete_old(jobs, job, keep, name)
        if wait:
            jobs.wait(name)
    return {"name": name, "started": True}


def _delete_old(jobs: "RayJobs", job: dict[str, Any], keep: int, started: str) -> None:
    """Never the one that was just started; what cannot be deleted is told and left to the next start, for this one did begin."""
    try:
        for name in jobs.old(job, keep, but=started):
            jobs.delete(name)
            console.print(f"deleted {name}, which had ended", markup=False)
    except ServingError as error:
        errors.print(f"warning: RayJobs that had ended are still there: {error}", markup=False)


def _settings() -> Any:
    from tastemaker.logs import write_logs

    settings = context.settings()
    write_logs(settings.logging)
    return settings


def _metrics_folder() -> Path:
    """Of this process alone or of its pod; prometheus_client looks at the variable when it is imported."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = context.lifetime.enter_context(_scratch())
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _scratch() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="tastemaker-metrics-", ignore_cleanup_errors=True) as folder:
        yield folder


def _listen(application: "FastAPI", host: str, port: int, wait: bool) -> str:
    from tastemaker.runtime import free_port
    from tastemaker_services.admin.listener import AdminServer

    server = AdminServer(application, host, port or free_port())
    server.start()
    context.lifetime.callback(server.stop)
    console.print(f"listening at {server.url}", markup=False)
    if wait:
        wait_for_interrupt()
    return server.url
