"""`tastemaker erase`: a user is forgotten."""

from typing import Annotated, Any

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.terminal import console, print_json, print_table

app = typer.Typer()


@app.command("erase")
def erase(
    user: Annotated[str, typer.Argument(help="The customer's own id.")], as_json: Json = False
) -> list[dict[str, Any]]:
    """Erase a user, and all whose erasure was asked for: online, in the log, in what was computed from it."""
    from tastemaker.erasure import Eraser
    from tastemaker.events.erasure import request_erasure
    from tastemaker.state.connection import cache_url_of, connect, open_keys, open_state

    settings, home = context.settings(), context.home()
    with open_state(settings, home) as client, connect(cache_url_of(settings, home)) as cache:
        keys = open_keys(client, settings)
        request_erasure(client, keys, user)
        receipts = Eraser(settings, home, client, cache, keys).erase_pending()
    found = [receipt.as_dict() for receipt in receipts]
    if as_json:
        print_json(found)
    else:
        for receipt in receipts:
            print_table(f"Erasure {receipt.receipt}", ["what", "removed"], receipt.removed.items())
            trained = ", ".join(map(str, receipt.bundles)) or "none"
            console.print(f"versions that may have learned of the user: {trained}", markup=False)
    return found
