"""`tastemaker gc`: removes what the retention settings let go."""

from typing import Annotated, Any

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.terminal import console, print_json, print_table

app = typer.Typer()


@app.command("gc")
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Json = False,
) -> dict[str, Any]:
    """Remove versions, bundles, runs, checkpoints and old days that `retention` does not keep, and what nothing names (nightly)."""
    from tastemaker.retention.collecting import collect
    from tastemaker.retention.receipts import RECEIPTS
    from tastemaker.state.connection import open_keys, open_state

    settings, home = context.settings(), context.home()
    with open_state(settings, home) as client:
        done = collect(settings, home, client, open_keys(client, settings), dry_run=dry_run)
    told = done.as_dict() | {"killed_before": done.killed}
    if as_json:
        print_json(told)
        return told
    title = f"{'Would go' if dry_run else 'Gone'}: catalogue {settings.catalogue}"
    rows = [(kind, number, f"{size / 2**20:.1f}") for kind, number, size in done.sums()]
    print_table(title, ["what", "number", "MB"], rows)
    for one in done.gone if dry_run else ():
        console.print(f"{one.kind} {one.name}: {one.why}", markup=False)
    for number, why in done.kept.items():
        console.print(f"version {number} stays: {why}", markup=False)
    for skipped in done.skipped:
        console.print(f"not looked at: {skipped}", markup=False)
    if done.killed is not None:
        number = len(done.killed["removed"])
        console.print(f"the run of {done.killed['at']} was killed after {number} removals", markup=False)
    if (done.gone or done.killed) and not dry_run:
        console.print(f"what went is written in {home.root / 'logs' / RECEIPTS}", markup=False)
    return told
