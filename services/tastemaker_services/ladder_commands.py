"""`tastemaker ladder …`: the kill switch, which holds all answers of the catalogue to a rung."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.errors import UsageError
from tastemaker.terminal import console, print_json, print_table

if TYPE_CHECKING:
    import redis

    from tastemaker.state.forced import Forced
    from tastemaker.state.keys import Keys

app = typer.Typer(help="The rungs that answers fall to, and the switch that forces one.")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@app.command("force")
def force(
    rung: Annotated[
        str,
        typer.Argument(
            help="no-rerank, retrieval-order, base-vector, cached, trending or popular; each does without what those before it do without."
        ),
    ],
    lasting: Annotated[
        str | None, typer.Option("--for", help="Ends by itself after so long: 90s, 10m, 2h, 1d.")
    ] = None,
    as_json: Json = False,
) -> dict[str, Any]:
    """Hold all answers to RUNG or below. Every gateway does so within a second."""
    from tastemaker.state import forced as state

    chosen = state.Forced.of(rung, None if lasting is None else seconds_of(lasting))
    with _state() as (client, keys):
        state.force(client, keys, chosen)
    return _said(_told(keys.catalogue, chosen), as_json)


@app.command("show")
def show(as_json: Json = False) -> dict[str, Any]:
    """Show whether a rung is forced; of a gateway that runs from this home also breakers, load and rungs used."""
    from tastemaker.state import forced as state

    with _state() as (client, keys):
        told = _told(keys.catalogue, state.read_forced(client, keys)) | {"gateways": _gateways()}
    if as_json:
        print_json(told)
        return told
    _print(told)
    if told["gateways"] is not None:
        rows = [
            (part, state) for part, state in sorted(told["gateways"]["breakers"].items()) if state != "closed"
        ]
        print_table("breakers", ["part", "state"], rows or [("all parts", "closed")])
        print_table("rungs used", ["rung", "answers"], sorted(told["gateways"]["rungs_used"].items()))
        shed = [
            (priority, rung, number)
            for priority, rungs in sorted(told["gateways"]["shed"].items())
            for rung, number in sorted(rungs.items())
        ]
        print_table("less because of load", ["priority", "rung", "requests"], shed)
    return told


@app.command("release")
def release(as_json: Json = False) -> dict[str, Any]:
    """Let answers use the whole graph again."""
    from tastemaker.state import forced as state

    with _state() as (client, keys):
        state.release(client, keys)
    return _said(_told(keys.catalogue, None), as_json)


def seconds_of(text: str) -> float:
    """A time as people write it, in seconds.

    >>> [seconds_of(text) for text in ("90s", "10m", "1.5h")]
    [90.0, 600.0, 5400.0]

    Raises:
        UsageError: It is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        limit = "a number with s, m, h or d"
        raise UsageError("--for", value=text, limit=limit, mend="write 90s, 10m, 2h or 1d")
    return float(found[1]) * _UNITS[found[2]]


@contextmanager
def _state() -> Iterator[tuple["redis.Redis", "Keys"]]:
    from tastemaker.state.connection import open_keys, open_state

    settings = context.settings()
    with open_state(settings, context.home()) as client:
        yield client, open_keys(client, settings)


def _told(catalogue: str, forced: "Forced | None") -> dict[str, Any]:
    if forced is not None and not forced.holds(time.time_ns() // 1_000_000):
        forced = None
    return {"catalogue": catalogue, "forced": None if forced is None else asdict(forced)}


def _said(told: dict[str, Any], as_json: bool) -> dict[str, Any]:
    if as_json:
        print_json(told)
    else:
        _print(told)
    return told


def _print(told: dict[str, Any]) -> None:
    forced = told["forced"]
    if forced is None:
        console.print(f"catalogue {told['catalogue']}: no rung is forced", markup=False)
        return
    until = f"until {_utc(forced['until_ms'])}" if forced["until_ms"] else "until it is released"
    since = _utc(forced["since_ms"])
    console.print(f"catalogue {told['catalogue']}: {forced['rung']} since {since}, {until}", markup=False)


def _gateways() -> dict[str, Any] | None:
    """What the admin listener of this home says; None where none runs, or it asks for a key."""
    import httpx

    try:
        url = json.loads((context.home() / "run" / "serving.json").read_text())["admin_url"]
        reply = httpx.get(f"{url}/admin/v1/ladder", timeout=5.0, trust_env=False)
        found: dict[str, Any] = reply.raise_for_status().json()
    except (OSError, ValueError, KeyError, httpx.HTTPError):
        return None
    del found["forced"]
    return found


def _utc(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
