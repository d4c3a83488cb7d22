"""`tastemaker rules …`: business rules that hold at once."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.terminal import console, print_json, print_table

app = typer.Typer()
rules = typer.Typer(help="Business rules that hold at once: what is blocked, filtered, boosted and pinned.")
app.add_typer(rules, name="rules")


@rules.callback()
def group() -> None:
    """Business rules that hold at once: what is blocked, filtered, boosted and pinned."""


@rules.command("set")
def set_rules(
    name: Annotated[str, typer.Argument(help="Of the rules.")],
    file: Annotated[Path, typer.Option(help="YAML: a list under the key rules.")],
) -> None:
    """Put rules in place of those of that name. Every gateway obeys them within a second."""
    from tastemaker.config_sources import read_yaml
    from tastemaker.stages.standing_rules import RuleFile, write_rules
    from tastemaker.state.connection import open_keys, open_state

    content = RuleFile.parse(read_yaml(file), str(file))
    settings = context.settings()
    with open_state(settings, context.home()) as client:
        write_rules(client, open_keys(client, settings), name, content)
    console.print(f"{name}: {len(content.rules)} rules", markup=False)


@rules.command("list")
def list_rules(as_json: Json = False) -> list[dict[str, Any]]:
    """Show all rules."""
    from tastemaker.stages.standing_rules import plain, read_rules
    from tastemaker.state.connection import open_keys, open_state

    settings = context.settings()
    with open_state(settings, context.home()) as client:
        found = read_rules(client, open_keys(client, settings))
    rows = [{"name": name} | rule for name, own in found.items() for rule in plain(own)]
    if as_json:
        print_json(rows)
    else:
        table = [[row["name"], row["kind"], row["match"], row.get("when", "")] for row in rows]
        print_table("Business rules", ["name", "kind", "match", "when"], table)
    return rows


@rules.command("remove")
def remove(name: Annotated[str, typer.Argument(help="Of the rules.")]) -> None:
    """Take the rules of a name away."""
    from tastemaker.errors import UsageError
    from tastemaker.stages.standing_rules import remove_rules
    from tastemaker.state.connection import open_keys, open_state

    settings = context.settings()
    with open_state(settings, context.home()) as client:
        there_were = remove_rules(client, open_keys(client, settings), name)
    if not there_were:
        raise UsageError(
            "there are no rules", value=name, mend="see `tastemaker rules list` for those that there are"
        )
    console.print(f"{name} is gone", markup=False)
