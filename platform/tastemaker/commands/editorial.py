"""`tastemaker editorial …`: lists that people put together."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.terminal import console, print_json, print_table

app = typer.Typer()
editorial = typer.Typer(help="Lists that people put together, as a source of candidates.")
app.add_typer(editorial, name="editorial")


@editorial.callback()
def group() -> None:
    """Lists that people put together, as a source of candidates."""


@editorial.command("set")
def set_list(
    name: Annotated[str, typer.Argument(help="Of the list.")],
    file: Annotated[Path, typer.Option(help="YAML: items, and if wanted weight, starts, ends, when.")],
) -> None:
    """Put a list in place of the one of that name."""
    from tastemaker.config_sources import read_yaml
    from tastemaker.stages.editorial import EditorialList, write_list
    from tastemaker.state.connection import open_keys, open_state

    content = EditorialList.parse(read_yaml(file), str(file))
    settings = context.settings()
    with open_state(settings, context.home()) as client:
        write_list(client, open_keys(client, settings), name, content)
    console.print(f"{name}: {len(content.items)} items", markup=False)


@editorial.command("list")
def list_lists(as_json: Json = False) -> list[dict[str, Any]]:
    """Show all lists."""
    from tastemaker.stages.editorial import read_lists
    from tastemaker.state.connection import open_keys, open_state

    settings = context.settings()
    with open_state(settings, context.home()) as client:
        found = read_lists(client, open_keys(client, settings))
    rows = [{"name": name} | content.model_dump(mode="json") for name, content in found.items()]
    if as_json:
        print_json(rows)
    else:
        table = [[r["name"], len(r["items"]), r["weight"], r["starts"] or "", r["ends"] or ""] for r in rows]
        print_table("Editorial lists", ["name", "items", "weight", "starts", "ends"], table)
    return rows


@editorial.command("remove")
def remove(name: Annotated[str, typer.Argument(help="Of the list.")]) -> None:
    """Take a list away."""
    from tastemaker.errors import UsageError
    from tastemaker.stages.editorial import remove_list
    from tastemaker.state.connection import open_keys, open_state

    settings = context.settings()
    with open_state(settings, context.home()) as client:
        there_was = remove_list(client, open_keys(client, settings), name)
    if not there_was:
        raise UsageError(
            "there is no editorial list",
            value=name,
            mend="see `tastemaker editorial list` for those that there are",
        )
    console.print(f"{name} is gone", markup=False)
