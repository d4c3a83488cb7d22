"""`tastemaker promote` and `history`: how a version earns an alias, and what was live when."""

import getpass
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.terminal import console, print_json, print_table, progress, time_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tastemaker.promotion.gate import GateResult
    from tastemaker.promotion.record import Promotion
    from tastemaker.registry.history import AliasMove

app = typer.Typer()


@app.command()
def promote(
    version: Annotated[int, typer.Argument(help="Version of the catalogue's bundle.")],
    to: Annotated[str, typer.Option(help="champion, challenger or shadow.")] = "champion",
    reason: Annotated[str, typer.Option(help="Why; kept in the history.")] = "",
    force: Annotated[bool, typer.Option(help="Move the alias against the gates; needs a reason.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Ask gates anew that passed before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask the gates and move nothing.")] = False,
    as_json: Json = False,
) -> dict[str, Any]:
    """Let a version through the gates and point an alias at it; run it again to go on where it was left."""
    from tastemaker.bundle.store import BundleStore
    from tastemaker.promotion.promoter import Promoter, PromotionOrder, refusal
    from tastemaker.registry.client import Registry

    settings, home = context.settings(), context.home()
    promoter = Promoter(settings, home, Registry(settings, home), BundleStore.of(settings, home))
    order = PromotionOrder(version, to, getpass.getuser(), reason, force, again, dry_run)
    with _told(len(promoter.gates), as_json) as tell:
        promotion = promoter.promote(order, tell)
    if as_json:
        print_json(promotion.model_dump(mode="json"))
    if (refused := refusal(promotion)) is not None:
        raise refused
    if promotion.state == "waiting":
        raise _waits(promotion)
    if not as_json:
        console.print(_ended(promotion), markup=False)
    return promotion.model_dump(mode="json")


@app.command()
def history(
    at: Annotated[
        str, typer.Option(help="What was live then, such as 2026-11-26T08:30, UTC unless it says.")
    ] = "",
    alias: Annotated[str, typer.Option(help="Of this alias alone.")] = "",
    as_json: Json = False,
) -> list[dict[str, Any]]:
    """Show every move of every alias: when, by whom and why; or what was live at a time."""
    from tastemaker.registry.client import Registry
    from tastemaker.registry.history import all_live_at

    settings = context.settings()
    moves = Registry(settings, context.home()).history(settings.catalogue)
    if at:
        moves = list(all_live_at(moves, _time_ms(at)).values())
    moves = [move for move in moves if alias in ("", move.alias)]
    if as_json:
        print_json([asdict(move) for move in moves])
    elif not moves:
        console.print("nothing was live" if at else "no alias was moved yet", markup=False)
    else:
        columns = ["alias", "version", "before", "how", "when (UTC)", "who", "why"]
        print_table(f"Live at {at}" if at else "Moves", columns, map(_row, moves))
    return [asdict(move) for move in moves]


@contextmanager
def _told(num_gates: int, as_json: bool) -> "Iterator[Callable[[GateResult], None]]":
    """Shows each answer as it comes, and how many gates are left."""
    begun_ms = time.time_ns() // 1_000_000
    with progress("asking gates", num_gates) as advance:

        def tell(gate: "GateResult") -> None:
            advance(1)
            if not as_json:
                stood = f"; said {time_of(gate.at_ms)} UTC" if gate.at_ms < begun_ms else ""
                console.print(f"{_line(gate)}{stood}", markup=False, soft_wrap=True)

        yield tell


def _line(gate: "GateResult") -> str:
    figures = (
        "" if gate.value is None or gate.limit is None else f" ({gate.value:.4g}, limit {gate.limit:.4g})"
    )
    return f"{gate.name:<12} {gate.outcome:<14} {gate.reason}{figures}"


def _ended(promotion: "Promotion") -> str:
    if promotion.state == "passed":
        return f"version {promotion.version} would become {promotion.alias}: nothing was moved"
    forced = ", by force" if promotion.forced else ""
    return f"{promotion.alias} is version {promotion.version}{forced}"


def _waits(promotion: "Promotion") -> Exception:
    from tastemaker.errors import RegistryError

    why = "; ".join(f"{gate.name}: {gate.reason}" for gate in promotion.of("waiting"))
    again = f"run `tastemaker promote {promotion.version} --to {promotion.alias}` again later"
    return RegistryError(f"version {promotion.version} is not {promotion.alias} yet ({why})", mend=again)


def _time_ms(text: str) -> int:
    from tastemaker.errors import UsageError

    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        limit = "a time such as 2026-11-26T08:30 or 2026-11-26T09:30+01:00"
        raise UsageError("--at", value=text, limit=limit) from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _row(move: "AliasMove") -> list[object]:
    when = time_of(move.timestamp_ms)
    version, before = ("none" if number is None else number for number in (move.version, move.previous))
    how = f"{move.kind}, forced" if move.forced else move.kind
    return [move.alias, version, before, how, when, move.actor, move.reason]
