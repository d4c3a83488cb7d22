"""`tastemaker doctor`: what is wrong with a running installation."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.terminal import console, print_json

app = typer.Typer()


@app.command("doctor")
def doctor(
    bundle: Annotated[
        Path | None, typer.Option(metavar="FILE.tar.gz", help="Also pack what support needs; no secrets.")
    ] = None,
    as_json: Json = False,
) -> dict[str, Any]:
    """Check a running installation: state, registry, versions, replicas, streams, disk, clock; exit 1 where one fails."""
    from tastemaker.doctor.examination import examine
    from tastemaker.doctor.finding import worst

    settings, home = context.settings(), context.home()
    findings = list(examine(settings, home, context.gateway_url()))
    outcome = worst(findings)
    report: dict[str, Any] = {"outcome": outcome, "findings": [asdict(one) for one in findings]}
    if bundle is not None:
        report["bundle"] = _pack(bundle, findings)
    if as_json:
        print_json(report)
    else:
        for one in findings:
            console.print(f"{one.outcome:8}{one.check}: {one.detail}", markup=False)
            if one.mend:
                console.print(f"{'':8}-> {one.mend}", markup=False)
        console.print(f"catalogue {settings.catalogue}: {outcome}", markup=False)
        if bundle is not None:
            console.print(f"wrote {bundle}: {len(report['bundle'])} files", markup=False)
    if outcome == "failed":
        raise typer.Exit(1)
    return report


def _pack(path: Path, findings: Any) -> list[str]:
    from tastemaker.config_sources import setting_origins
    from tastemaker.doctor.support_bundle import write_support_bundle
    from tastemaker.errors import UsageError

    settings, home = context.settings(), context.home()
    try:
        return write_support_bundle(path, settings, home, findings, setting_origins()[1], _metrics())
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}", mend="name a file in a folder of yours"
        ) from error


def _metrics() -> str | None:
    import json

    import httpx

    gateway = context.settings().gateway
    try:
        url = json.loads((context.home() / "run" / "serving.json").read_text())["admin_url"]
    except (OSError, ValueError, KeyError):
        url = f"http://{gateway.admin_host}:{gateway.admin_port}"
    try:
        reply = httpx.get(f"{url}/metrics", timeout=10.0, trust_env=False)
    except httpx.HTTPError:
        return None
    return reply.text if reply.status_code == 200 else None
