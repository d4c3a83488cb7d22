"""`tastemaker promote`, `rollback`, `bundles`: which version is live."""

import getpass
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker import context
from tastemaker.terminal import console, print_json, print_table

if TYPE_CHECKING:
    from tastemaker.registry.client import Registry

WAIT_SECONDS = 60.0
app = typer.Typer()
bundles = typer.Typer(help="Versions of the catalogue's bundle.")
app.add_typer(bundles, name="bundles")
Json = Annotated[bool, typer.Option("--json", help="For machines.")]


@bundles.command("list")
def list_(as_json: Json = False) -> dict[str, Any]:
    """The live aliases and who moved them."""
    from tastemaker.registry.client import Registry

    settings = context.settings()
    registry = Registry(settings, context.home())
    aliases = {name: v.number for name, v in registry.aliases(settings.catalogue).items()}
    history = [_plain(entry) for entry in registry.history(settings.catalogue)]
    if as_json:
        print_json({"aliases": aliases, "history": history})
    else:
        print_table("Live", ["alias", "version"], aliases.items())
        for entry in history:
            console.print(entry, markup=False)
    return {"aliases": aliases, "history": history}


@app.command()
def promote(
    version: Annotated[int, typer.Argument(help="Version of the catalogue's bundle.")],
    to: Annotated[str, typer.Option(help="champion, challenger or shadow.")] = "champion",
    reason: Annotated[str, typer.Option(help="Why; kept in the history.")] = "",
    force: Annotated[bool, typer.Option(help="Move the alias against the gates; needs a reason.")] = False,
    as_json: Json = False,
) -> list[dict[str, Any]]:
    """Let a version through the gates and point an alias at it."""
    from tastemaker.bundle.store import BundleStore
    from tastemaker.registry.client import Registry
    from tastemaker.registry.gates import promote as move

    settings, home = context.settings(), context.home()
    results = move(
        Registry(settings, home),
        BundleStore.of(settings, home),
        settings.catalogue,
        version,
        to,
        actor=getpass.getuser(),
        reason=reason,
        force=force,
    )
    rows = [_plain(result) for result in results]
    if as_json:
        print_json(rows)
    else:
        columns = ["gate", "outcome", "value", "limit", "reason"]
        print_table(
            f"Version {version} -> {to}",
            columns,
            [
                [row["name"], row["outcome"], _short(row["value"]), _short(row["limit"]), row["reason"]]
                for row in rows
            ],
        )
    return rows


@app.command()
def rollback(
    alias: Annotated[str, typer.Argument()] = "champion",
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
    version = registry.rollback(settings.catalogue, alias).number
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


def _plain(value: Any) -> dict[str, Any]:
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dict(dump(mode="json"))
    from dataclasses import asdict

    return asdict(value)


def _short(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)
