"""`tastemaker serve` and `tastemaker recommend`."""

import json
from typing import Annotated, Any

import typer

from tastemaker import context
from tastemaker.terminal import console, print_json, print_table, wait_for_interrupt

app = typer.Typer()


@app.command("serve")
def serve(
    wait: Annotated[bool, typer.Option("--wait/--no-wait", hidden=True)] = True,
) -> dict[str, str]:
    """Serve the champion: gateway, graph, consumer, metrics. Ctrl-C stops all of it."""
    from tastemaker_services.app import start

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
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
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


def _ask(body: dict[str, Any]) -> dict[str, Any]:
    import httpx

    from tastemaker.errors import ServingError

    url = _running_url()
    try:
        reply = httpx.post(f"{url}/v1/recommendations", json=body, timeout=10.0, trust_env=False)
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
