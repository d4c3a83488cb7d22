"""`tastemaker init`, `tastemaker config show`."""

from typing import TYPE_CHECKING, Any

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.terminal import console, print_json, print_table

if TYPE_CHECKING:
    from tastemaker.config import Settings

app = typer.Typer()
config = typer.Typer(help="The settings in force.")
app.add_typer(config, name="config")


@app.command()
def init() -> None:
    """Make the home folder and the stores in it."""
    from tastemaker.registry.client import Registry

    home = context.home()
    Registry(context.settings(), home)
    console.print(f"home {home.root} is ready", markup=False)


@config.command("show")
def show(
    as_json: Json = False,
) -> dict[str, dict[str, Any]]:
    """Each setting with its value, its origin and its meaning."""
    from tastemaker.config_sources import setting_origins

    settings = context.settings()
    _, origins = setting_origins()
    rows = {
        key: {"value": value, "origin": origins.get(key, "default"), "help": text}
        for key, value, text in _describe(settings)
    }
    if as_json:
        print_json(rows)
    else:
        print_table(
            "Settings", ["key", "value", "origin"], [(k, r["value"], r["origin"]) for k, r in rows.items()]
        )
    return rows


def _describe(settings: "Settings") -> list[tuple[str, Any, str]]:
    rows: list[tuple[str, Any, str]] = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        nested = getattr(type(value), "model_fields", None)
        if nested is None:
            rows.append((name, str(value), field.description or ""))
        else:
            rows += [(f"{name}.{key}", shown, text) for key, shown, text in _describe(value)]
    return rows
