"""`tastemaker serve` and `tastemaker recommend`."""

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.terminal import console, print_json, print_table, wait_for_interrupt
from tastemaker_services import cluster_commands, ladder_commands

if TYPE_CHECKING:
    from tastemaker_services.replaying import Replay

app = typer.Typer()
app.add_typer(ladder_commands.app, name="ladder")
app.add_typer(cluster_commands.app, name="cluster")


@app.command("serve")
def serve(
    wait: Annotated[bool, typer.Option("--wait/--no-wait", hidden=True)] = True,
) -> dict[str, str]:
    """Serve the champion: gateway, graph, consumer, metrics. Ctrl-C stops all of it."""
    from tastemaker.logs import write_logs
    from tastemaker_services.app import start

    write_logs(context.settings().logging)
    serving = start(context.settings(), context.home())
    context.lifetime.callback(serving.stop)
    urls = {
        "gateway": serving.url,
        "docs": f"{serving.admin_url}/docs",
        "metrics": f"{serving.admin_url}/metrics",
    }
    for name, url in urls.items():
        console.print(f"{name}: {url}", markup=False)
    if not serving.settings.gateway.keys:
        console.print("no API keys are configured: the gateway listens on loopback only", markup=False)
    if wait:
        wait_for_interrupt()
    return urls


@app.command("recommend")
def recommend(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    k: Annotated[int, typer.Option("--k", help="Length of the list.")] = 10,
    session: Annotated[
        list[str] | None, typer.Option(help="An item of the visit so far; repeatable.")
    ] = None,
    as_json: Json = False,
) -> dict[str, Any]:
    """Ask the running gateway what it would show USER."""
    answer = _ask({"user_id": user, "k": k, "session": session or []})
    if as_json:
        print_json(answer)
        return answer
    rows = [
        [i["item_id"], f"{i['score']:.4f}", ", ".join(i["sources"]), i["reason"]] for i in answer["items"]
    ]
    print_table(f"for {user}, by bundle {answer['bundle']}", ["item", "score", "sources", "reason"], rows)
    return answer


@app.command("replay")
def replay(
    request_id: Annotated[str, typer.Argument(help="Of a logged answer.")],
    as_json: Json = False,
) -> dict[str, Any]:
    """Answer a logged request again, as of its time, and show any difference."""
    from tastemaker.state.connection import open_keys, open_state
    from tastemaker_services.replaying import Replayer

    settings, home = context.settings(), context.home()
    with open_state(settings, home) as client:
        found = Replayer(settings, home, client, open_keys(client, settings)).replay(request_id)
    report = {
        "request_id": found.request_id,
        "bundle": found.bundle,
        "user_id": found.user_id,
        "rungs": list(found.rungs),
        "same": not found.differing,
        "slots": [slot._asdict() | {"same": slot.is_same} for slot in found.slots],
        "lists": [one._asdict() for one in found.lists],
        "notes": found.notes,
    }
    if as_json:
        print_json(report)
        return report
    _print_replay(found)
    return report


def _print_replay(found: "Replay") -> None:
    """Both answers side by side; of two variants' picks also whose each is, and where in both variants' own lists it stands."""
    columns = ["rank", "logged", "score", "replayed", "score", ""]
    columns += ["pick of", *(f"rank by {one.variant}" for one in found.lists)] if found.lists else []
    rows: list[list[object]] = []
    for slot in found.slots:
        logged = [slot.logged or "", _score(slot.logged_score)]
        replayed = [slot.replayed or "", _score(slot.replayed_score)]
        row: list[object] = [slot.rank, *logged, *replayed, "" if slot.is_same else "differs"]
        if found.lists:
            whose = dict.fromkeys(team or "nobody" for team in (slot.logged_team, slot.replayed_team))
            row += [", now ".join(whose), *(one.rank_of(slot.replayed) or "" for one in found.lists)]
        rows.append(row)
    bundles = " and ".join(dict.fromkeys(one.bundle for one in found.lists)) or found.bundle
    print_table(f"request {found.request_id} for {found.user_id}, by bundle {bundles}", columns, rows)
    verdict = f"{len(found.differing)} of {len(found.slots)} differ" if found.differing else "no difference"
    for line in (verdict, *found.notes):
        console.print(line, markup=False)


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.5f}"


def _ask(body: dict[str, Any]) -> dict[str, Any]:
    import httpx

    from tastemaker.errors import ServingError

    url = _running_url()
    try:
        key = os.environ.get("TASTEMAKER_API_KEY")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        reply = httpx.post(
            f"{url}/v1/recommendations", json=body, headers=headers, timeout=10.0, trust_env=False
        )
        answer: dict[str, Any] = reply.json()
    except (httpx.HTTPError, ValueError) as error:
        raise ServingError(
            f"no gateway answers at {url}",
            value=type(error).__name__,
            mend="start one with `tastemaker serve`",
        ) from error
    if reply.status_code != 200:
        raise ServingError(f"the gateway refused: {answer.get('detail', reply.text[:200])}")
    return answer


def _running_url() -> str:
    """Where the gateway of this home listens; where none is announced, where the settings say."""
    gateway = context.settings().gateway
    try:
        return str(json.loads((context.home() / "run" / "serving.json").read_text())["url"])
    except (OSError, ValueError, KeyError):
        return f"http://{gateway.host}:{gateway.port}"
