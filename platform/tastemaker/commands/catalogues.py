"""`tastemaker catalogue …`: whole catalogues."""

from typing import Annotated

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.terminal import console, print_json, print_table

app = typer.Typer()
catalogues = typer.Typer(help="Whole catalogues.")
app.add_typer(catalogues, name="catalogue")


@catalogues.callback()
def group() -> None:
    """Whole catalogues."""


@catalogues.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="Which.")],
    yes: Annotated[bool, typer.Option("--yes", help="It is meant: there is no way back.")] = False,
    bundles: Annotated[bool, typer.Option("--bundles", help="Its versions and bundles as well.")] = False,
    as_json: Json = False,
) -> dict[str, int]:
    """Remove a catalogue that is not being served: state, features, events, decisions. Others are not touched."""
    from tastemaker.errors import UsageError
    from tastemaker.removal import Removal
    from tastemaker.state.connection import cache_url_of, connect, open_state

    if not yes:
        raise UsageError(
            f"all that catalogue {name} has would be removed, with no way back", mend="say so with --yes"
        )
    settings, home = context.settings(), context.home()
    with open_state(settings, home) as client, connect(cache_url_of(settings, home)) as cache:
        removed = Removal(settings, home, client, cache, name).remove(bundles=bundles)
    if as_json:
        print_json(removed)
    else:
        print_table(f"Catalogue {name}", ["what", "removed"], removed.items())
        console.print("receipts of erasures and training runs stay", markup=False)
        if not bundles:
            console.print("versions and bundles stay: --bundles removes them as well", markup=False)
    return removed
