"""What serves now: each alias with the version that gateways answer from, and what keeps another from answering.

Made of what is live and of what processes tell of themselves; MLflow is not asked.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tastemaker.registry.live import LiveAliases, LiveVersion, read_live
from tastemaker.registry.reports import GATEWAY, Report, read_reports, stage_of
from tastemaker.state.keys import Keys

if TYPE_CHECKING:
    import redis

_LOOK_SECONDS: Final = 0.05
PREVIOUS: Final = "(before)"
"""In place of an alias, of the champion before this one."""


@dataclass(frozen=True, slots=True)
class AliasState:
    """One alias. `answering` of `gateways` gateways answer from its version; `lacking` processes do not hold it.

    `refused` says why, by stage, where a stage refused it.
    """

    alias: str
    version: int
    bundle: str
    gateways: int
    answering: int
    processes: int
    lacking: int
    refused: Mapping[str, str]

    @property
    def outcome(self) -> str:
        """In one word."""
        if self.gateways and self.answering == self.gateways:
            return "answers"
        if self.refused:
            return "refused"
        if not self.processes:
            return "nothing serves"
        if self.alias == PREVIOUS:
            return "held" if not self.lacking else "loading"
        return "loading" if self.lacking else "warming up"


def overview(live: LiveAliases | None, reports: Mapping[str, Report]) -> list[AliasState]:
    """Every live alias, the champion before last.

    Args:
        live: As replicas see it; None where nothing was ever live.
        reports: Of the processes that live.
    """
    if live is None:
        return []
    named: dict[str, LiveVersion] = dict(sorted(live.aliases.items()))
    if live.previous is not None:
        named[PREVIOUS] = live.previous
    return [_state(alias, version, reports) for alias, version in named.items()]


def read_overview(client: "redis.Redis", keys: Keys) -> list[AliasState]:
    """The overview as of now.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    return overview(read_live(client, keys), read_reports(client, keys))


def wait_until_answered(
    client: "redis.Redis", keys: Keys, alias: str, version: int, timeout_seconds: float
) -> bool | None:
    """Waits until every gateway answers an alias from a version; whether they do in time, None where there is none.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    give_up = time.monotonic() + timeout_seconds
    while True:
        gateways = [r for name, r in read_reports(client, keys).items() if stage_of(name) == GATEWAY]
        if not gateways:
            return None
        if all(report.answers.get(alias) == version for report in gateways):
            return True
        if time.monotonic() >= give_up:
            return False
        time.sleep(_LOOK_SECONDS)


def _state(alias: str, version: LiveVersion, reports: Mapping[str, Report]) -> AliasState:
    gateways = [report for name, report in reports.items() if stage_of(name) == GATEWAY]
    refused: dict[str, Any] = {
        stage_of(name): report.refused[version.sha256]
        for name, report in reports.items()
        if version.sha256 in report.refused
    }
    return AliasState(
        alias=alias,
        version=version.version,
        bundle=version.ref.bundle_id,
        gateways=len(gateways),
        answering=sum(report.answers.get(alias) == version.version for report in gateways),
        processes=len(reports),
        lacking=sum(version.sha256 not in report.held for report in reports.values()),
        refused=refused,
    )
