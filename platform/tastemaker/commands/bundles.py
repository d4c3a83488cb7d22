"""`tastemaker rollback` and `bundles`: which version is live, and the way back."""

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.terminal import console, print_json, print_table, time_of

if TYPE_CHECKING:
    from tastemaker.registry.client import Registry

WAIT_SECONDS = 60.0
NEWEST = 20
"""Versions that a list shows unless asked for all."""
app = typer.Typer()
bundles = typer.Typer(help="Versions of the catalogue's bundle.")
app.add_typer(bundles, name="bundles")


@bundles.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help=f"Show more than the newest {NEWEST}.")] = False,
    as_json: Json = False,
) -> dict[str, Any]:
    """Versions, the newest first, and which aliases name them; as JSON all, the oldest first."""
    from dataclasses import asdict

    from tastemaker.registry.client import Registry

    settings = context.settings()
    registry = Registry(settings, context.home())
    aliases = {name: v.number for name, v in registry.aliases(settings.catalogue).items()}
    history = [asdict(entry) for entry in registry.history(settings.catalogue)]
    versions = [asdict(version) for version in registry.versions(settings.catalogue)]
    found = {"aliases": aliases, "versions": versions, "history": history}
    if as_json:
        print_json(found)
        return found
    shown = versions[::-1] if every else versions[::-1][:NEWEST]
    rows = [
        [
            v["number"],
            v["sha256"][:12],
            time_of(round(datetime.fromisoformat(v["created"]).timestamp() * 1000)),
            _of_version(aliases, v["number"]),
        ]
        for v in shown
    ]
    print_table("Versions", ["version", "bundle", "published (UTC)", "aliases"], rows)
    if len(shown) < len(versions):
        console.print(
            f"older versions left out: {len(versions) - len(shown):,}; --all shows them", markup=False
        )
    console.print("`tastemaker history` says who moved the aliases, when and why", markup=False)
    return found


def _of_version(aliases: dict[str, int], number: int) -> str:
    return ", ".join(alias for alias, named in aliases.items() if named == number)


@bundles.command("gates")
def gates(
    version: Annotated[int, typer.Argument(help="Version of the catalogue's bundle.")], as_json: Json = False
) -> list[dict[str, Any]]:
    """What the gates said of a version, for each alias that it wanted."""
    from tastemaker.promotion.record import read_promotions
    from tastemaker.registry.client import Registry

    settings = context.settings()
    found = read_promotions(Registry(settings, context.home()), settings.catalogue, version)
    if as_json:
        print_json([promotion.model_dump(mode="json") for promotion in found])
    elif not found:
        console.print(f"version {version} wanted no alias yet", markup=False)
    for promotion in found if not as_json else ():
        console.print(promotion.as_text(), markup=False, soft_wrap=True)
    return [promotion.model_dump(mode="json") for promotion in found]


@app.command()
def rollback(
    alias: Annotated[str, typer.Argument()] = "champion",
    reason: Annotated[str, typer.Option(help="Why; kept in the history.")] = "rolled back",
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Return once every gateway answers from it.")
    ] = True,
    as_json: Json = False,
) -> dict[str, Any]:
    """Point an alias back at the version that it named before."""
    started = time.monotonic()
    from tastemaker.registry.client import Registry

    settings = context.settings()
    registry = Registry(settings, context.home())
    version = registry.rollback(settings.catalogue, alias, reason=reason).number
    answered = _answered(registry, alias, version) if wait else None
    seconds = round(time.monotonic() - started, 2)
    if as_json:
        print_json({"alias": alias, "version": version, "answered": answered, "seconds": seconds})
    elif answered:
        console.print(
            f"{alias} is version {version} again: every gateway answers from it after {seconds} s",
            markup=False,
        )
    else:
        console.print(f"{alias} is version {version} again", markup=False)
    return {"alias": alias, "version": version, "answered": answered, "seconds": seconds}


def _answered(registry: "Registry", alias: str, version: int) -> bool | None:
    """Whether all gateways answer from a version; None where nothing serves.

    Raises:
        ServingError: They do not in time.
    """
    from tastemaker.errors import ServingError, StateError
    from tastemaker.registry.live import Watcher
    from tastemaker.registry.overview import wait_until_answered
    from tastemaker.state.connection import connect, open_keys, url_of

    settings = context.settings()
    try:
        url = url_of(settings, context.home())
    except StateError:
        return None
    with connect(url) as client:
        keys = open_keys(client, settings)
        Watcher(registry, client, keys).poll()  # what serves looks only every two seconds
        answered = wait_until_answered(client, keys, alias, version, WAIT_SECONDS)
    if answered is False:
        raise ServingError(
            f"gateways that answer {alias} from version {version}", value="not all",
            limit=f"all within {WAIT_SECONDS:.0f} s", mend="see `tastemaker versions`; the alias has moved",
        )  # fmt: skip
    return answered
