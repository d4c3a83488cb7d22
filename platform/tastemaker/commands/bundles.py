"""`tastemaker promote`, `rollback`, `bundles`: which version is live."""

import getpass
from typing import Annotated, Any

import typer

from tastemaker import context
from tastemaker.terminal import console, print_json, print_table

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
def rollback(alias: Annotated[str, typer.Argument()] = "champion") -> int:
    """Point an alias back at the version that it named before."""
    from tastemaker.registry.client import Registry

    settings = context.settings()
    version = Registry(settings, context.home()).rollback(settings.catalogue, alias)
    console.print(f"{alias} is version {version.number} again", markup=False)
    return 0


def _plain(value: Any) -> dict[str, Any]:
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dict(dump(mode="json"))
    from dataclasses import asdict

    return asdict(value)


def _short(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)
