"""What the kept moves of aliases say: what was live when, what a rollback goes back to, what was moved behind our back.

Not where moves are kept (`registry.client`).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

MOVE_TAG: Final = "tastemaker.move."
"""Begins the name of each tag of the registered model that keeps a move; names sort by time."""
OUTSIDE_ACTOR: Final = "mlflow"
_OUTSIDE_REASON: Final = "moved in MLflow, not by tastemaker; the time is when it was seen"


@dataclass(frozen=True, slots=True)
class AliasMove:
    """Who pointed an alias at which version, when and why. `version` is None where the alias was removed.

    A move of kind "outside" was made in MLflow's own UI or API and seen later, at `timestamp_ms`: what serves followed it then.
    """

    timestamp_ms: int
    alias: str
    version: int | None
    previous: int | None
    actor: str
    reason: str
    kind: Literal["set", "rollback", "outside"] = "set"
    forced: bool = False


def read_moves(tags: Mapping[str, str]) -> list[AliasMove]:
    """The moves among a registered model's tags, oldest first; one that two watchers kept is there once."""
    found: dict[str, AliasMove] = {}
    for key in sorted(key for key in tags if key.startswith(MOVE_TAG)):
        found.setdefault(key.rpartition(".")[2], AliasMove(**json.loads(tags[key])))
    return list(found.values())


def tag_of(move: AliasMove, mark: str) -> tuple[str, str]:
    """Name and value of the tag that keeps a move. Of moves with the same mark only the first one counts."""
    return f"{MOVE_TAG}{move.timestamp_ms:015d}.{mark}", json.dumps(asdict(move), ensure_ascii=False)


def live_at(moves: Iterable[AliasMove], alias: str, timestamp_ms: int) -> AliasMove | None:
    """The move that decided what an alias named at a time; None where it named nothing yet."""
    return max(
        (move for move in moves if move.alias == alias and move.timestamp_ms <= timestamp_ms),
        key=lambda move: move.timestamp_ms,
        default=None,
    )


def all_live_at(moves: Sequence[AliasMove], timestamp_ms: int) -> dict[str, AliasMove]:
    """For every alias that named a version at a time the move that decided it, by alias."""
    found = {alias: live_at(moves, alias, timestamp_ms) for alias in sorted({move.alias for move in moves})}
    return {alias: move for alias, move in found.items() if move is not None and move.version is not None}


def rollback_target(moves: Iterable[AliasMove], alias: str) -> int | None:
    """The version that a rollback goes back to: the one named before; None where no other one was.

    A second rollback goes one step further back. A time without a version is skipped.

    >>> [rollback_target([AliasMove(t, "champion", v, None, "", "") for t, v in enumerate(vs)], "champion")
    ...  for vs in ([1], [1, 2, 2], [1, None], [3, None, 2])]
    [None, 1, 1, 3]
    """
    named: list[int | None] = []
    for move in moves:
        if move.alias != alias:
            continue
        if move.kind == "rollback":
            named = _before(named)
        else:
            named.append(move.version)
    back = _before(named)
    return back[-1] if back else None


def outside_moves(
    moves: Sequence[AliasMove], aliases: Mapping[str, int], now_ms: int
) -> list[tuple[AliasMove, str]]:
    """What aliases name now and the moves do not say, as moves with their marks.

    The mark of a move depends on what was known before alone: whoever else sees the same keeps it under the same mark.

    Args:
        moves: All of the catalogue, oldest first.
        aliases: What they name now.
        now_ms: When that was seen.
    """
    last = {move.alias: move for move in moves}
    time_ms = max([now_ms, *(move.timestamp_ms + 1 for move in moves[-1:])])
    found: list[tuple[AliasMove, str]] = []
    for alias in sorted(aliases.keys() | last.keys()):
        before, version = last.get(alias), aliases.get(alias)
        previous = before.version if before else None
        if previous == version:
            continue
        move = AliasMove(
            time_ms + len(found), alias, version, previous, OUTSIDE_ACTOR, _OUTSIDE_REASON, "outside"
        )
        known = json.dumps([alias, version, asdict(before) if before else None])
        found.append((move, hashlib.sha256(known.encode()).hexdigest()[:16]))
    return found


def _before(named: list[int | None]) -> list[int | None]:
    """What an alias named, without the newest, its repetitions at the end, and times without a version before it."""
    end = len(named)
    while end and named[end - 1] in (None, named[-1]):
        end -= 1
    return named[:end]
