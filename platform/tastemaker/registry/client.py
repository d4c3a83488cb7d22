"""Runs, versions and aliases of bundles, in MLflow. Replicas never import this: they read `registry.live`.

A catalogue is a registered model, a bundle one version of it. MLflow's aliases say what is live; each move of
one is also kept as a tag of the registered model, written before the move and never changed: the history.
"""

import getpass
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

from tastemaker.bundle.manifest import BundleRef
from tastemaker.config import Settings
from tastemaker.errors import RegistryError, UsageError
from tastemaker.home import Home
from tastemaker.registry.run import Run
from tastemaker.registry.store import experiment_id, found_or_none, open_client, registry_errors
from tastemaker.types import catalogue_name

_ALIAS = re.compile(r"[a-z][a-z0-9-]{0,39}")
_RESERVED_ALIAS = re.compile(r"latest|v[0-9]+")
_MOVE_TAG = "tastemaker.move."
_MAX_TEXT = 1000
_LOCK_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Version:
    """One released bundle as the registry knows it."""

    number: int
    uri: str
    sha256: str
    created: str
    run_id: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def ref(self) -> BundleRef:
        """What `Bundle.open` takes."""
        return BundleRef(self.uri, self.sha256)


@dataclass(frozen=True, slots=True)
class AliasMove:
    """Who pointed an alias at which version, when and why."""

    timestamp_ms: int
    alias: str
    version: int
    previous: int | None
    actor: str
    reason: str
    kind: Literal["set", "rollback"] = "set"
    forced: bool = False


class Registry:
    """The registry that the settings name; opening the embedded one makes it.

    Raises:
        RegistryError: From here and from every method, where MLflow cannot be reached or refuses.
    """

    def __init__(self, settings: Settings, home: Home) -> None:
        self._settings, self._home = settings, home
        self._client = open_client(settings, home)

    @contextmanager
    def run(
        self,
        name: str,
        *,
        parent: str | None = None,
        tags: Mapping[str, str] | None = None,
        again: str | None = None,
    ) -> Iterator[Run]:
        """A run that ends with the block: finished, failed, or killed by Ctrl-C.

        Args:
            name: What it is called.
            parent: Id of the run that it is nested in.
            tags: Kept with it.
            again: Id of a run of that name that ended or was left, which goes on instead of a new one.
        """
        run = Run(self._client, again or self._begin(name, parent, tags or {}))
        if again is not None:
            with registry_errors("go on with a run"):
                self._client.update_run(again, status="RUNNING")
        status = "FAILED"
        try:
            yield run
            status = run.outcome
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            with registry_errors("end a run"):
                self._client.set_terminated(run.id, status)

    def end_children(self, parent: str) -> set[str]:
        """Ends, as killed, the runs nested in a run that nobody is left to end; the names of those that ended before."""
        with registry_errors("read nested runs"):
            experiment = experiment_id(self._client, self._home, self._settings)
            found = self._client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
            for run in found:
                if run.info.status == "RUNNING":
                    self._client.set_terminated(run.info.run_id, "KILLED")
        return {str(run.info.run_name) for run in found if run.info.status in ("FINISHED", "FAILED")}

    def _begin(self, name: str, parent: str | None, tags: Mapping[str, str]) -> str:
        nested = {} if parent is None else {"mlflow.parentRunId": parent}
        with registry_errors("start a run"):
            experiment = experiment_id(self._client, self._home, self._settings)
            run = self._client.create_run(experiment, tags=nested | dict(tags), run_name=name)
        return str(run.info.run_id)

    def publish(
        self, catalogue: str, ref: BundleRef, metrics: Mapping[str, float], run_id: str | None = None
    ) -> Version:
        """The bundle's version of the catalogue: a new one, unless it has been published already."""
        name = catalogue_name(catalogue)
        tags = {
            "tastemaker.uri": ref.uri,
            "tastemaker.sha256": ref.sha256,
            "tastemaker.metrics": json.dumps(dict(metrics)),
        }
        with registry_errors(f"publish bundle {ref.bundle_id}"), self._lock():
            if self._model(name) is None:
                self._client.create_registered_model(name)
            found = self._search(f"name='{name}' and tag.`tastemaker.sha256`='{ref.sha256}'")
            source = f"tastemaker:{ref.uri}"
            return _version(
                found[0] if found else self._client.create_model_version(name, source, run_id, tags)
            )

    def versions(self, catalogue: str) -> list[Version]:
        """All versions of the catalogue, oldest first."""
        with registry_errors(f"list versions of catalogue {catalogue}"):
            found = self._search(f"name='{catalogue_name(catalogue)}'")
        return sorted(map(_version, found), key=lambda version: version.number)

    def version(self, catalogue: str, number: int | str) -> Version:
        """A version by its number, or the one that an alias names.

        Raises:
            RegistryError: There is no such version or alias.
        """
        name = catalogue_name(catalogue)
        wanted = self._aliases(name).get(number) if isinstance(number, str) else number
        with registry_errors(f"read version {number}"):
            found = wanted and found_or_none(lambda: self._client.get_model_version(name, str(wanted)))
        if not found:
            mend = "`tastemaker bundles list` shows what there is"
            raise RegistryError(f"catalogue {name} has no version or alias {number}", mend=mend)
        return _version(found)

    def aliases(self, catalogue: str) -> dict[str, Version]:
        """What every alias names now; empty for a catalogue that nothing was published for."""
        name = catalogue_name(catalogue)
        numbers = self._aliases(name)
        versions = {number: self.version(name, number) for number in set(numbers.values())}
        return {alias: versions[number] for alias, number in sorted(numbers.items())}

    def set_alias(
        self, catalogue: str, alias: str, number: int, actor: str, reason: str, *, forced: bool = False
    ) -> AliasMove:
        """Points an alias at a version, and keeps who did it and why. `gates.promote` asks the gates first.

        Raises:
            RegistryError: There is no such version.
            UsageError: The alias or the reason is not one.
        """
        with self._lock():
            return self._move(catalogue, alias, number, actor, reason, kind="set", forced=forced)

    def rollback(
        self, catalogue: str, alias: str, actor: str | None = None, reason: str = "rolled back"
    ) -> Version:
        """Points an alias back at what it named before; a second rollback goes one step further back.

        Raises:
            RegistryError: The alias never named another version.
        """
        with self._lock():
            named: list[int] = []
            for move in self.history(catalogue):
                if move.alias == alias and move.kind == "set":
                    named.append(move.version)
                elif move.alias == alias:
                    named = _before(named)
            back = _before(named)
            if not back:
                what = f"alias {alias} of catalogue {catalogue} named no other version before"
                raise RegistryError(what, mend="promote a version instead")
            actor = actor or getpass.getuser()
            self._move(catalogue, alias, back[-1], actor, reason, kind="rollback", forced=False)
        return self.version(catalogue, back[-1])

    def history(self, catalogue: str) -> list[AliasMove]:
        """All moves of all aliases, oldest first."""
        model = self._model(catalogue_name(catalogue))
        tags = model.tags if model is not None else {}
        kept = sorted(key for key in tags if key.startswith(_MOVE_TAG))
        return [AliasMove(**json.loads(tags[key])) for key in kept]

    def live_at(self, catalogue: str, alias: str, timestamp_ms: int) -> AliasMove | None:
        """The move that decided what an alias named at a time; None where it named nothing yet."""
        moves = [m for m in self.history(catalogue) if m.alias == alias and m.timestamp_ms <= timestamp_ms]
        return moves[-1] if moves else None

    def tag(self, catalogue: str, number: int, tags: Mapping[str, str]) -> None:
        """Writes tags on a version, such as what the gates said."""
        with registry_errors(f"tag version {number}"):
            for key, value in tags.items():
                self._client.set_model_version_tag(catalogue_name(catalogue), str(number), key, value)

    def _move(
        self,
        catalogue: str,
        alias: str,
        number: int,
        actor: str,
        reason: str,
        *,
        kind: Literal["set", "rollback"],
        forced: bool,
    ) -> AliasMove:
        check_alias(alias)
        if len(actor) + len(reason) > _MAX_TEXT:
            limit = f"at most {_MAX_TEXT} characters"
            raise UsageError(
                "reason and actor", value=len(actor) + len(reason), limit=limit, mend="shorten it"
            )
        name, to = catalogue_name(catalogue), self.version(catalogue, number).number
        past = self.history(name)
        now_ms = max([time.time_ns() // 1_000_000, *(move.timestamp_ms + 1 for move in past[-1:])])
        move = AliasMove(now_ms, alias, to, self._aliases(name).get(alias), actor, reason, kind, forced)
        with registry_errors(f"move alias {alias}"):
            key = f"{_MOVE_TAG}{now_ms:015d}.{uuid4().hex[:8]}"
            self._client.set_registered_model_tag(name, key, json.dumps(asdict(move), ensure_ascii=False))
            self._client.set_registered_model_alias(name, alias, str(to))
        return move

    def _lock(self) -> AbstractContextManager[None]:
        return self._home.lock("registry", _LOCK_TIMEOUT_SECONDS)

    def _model(self, name: str) -> Any:
        with registry_errors(f"read catalogue {name}"):
            return found_or_none(lambda: self._client.get_registered_model(name))

    def _aliases(self, name: str) -> dict[str, int]:
        model = self._model(name)
        return {} if model is None else {alias: int(number) for alias, number in model.aliases.items()}

    def _search(self, filters: str) -> list[Any]:
        page = self._client.search_model_versions(filters)
        found = list(page)
        while page.token:
            page = self._client.search_model_versions(filters, page_token=page.token)
            found += page
        return found


def check_alias(alias: str) -> None:
    """Lets pass what may name a live version, such as champion.

    Raises:
        UsageError: Other characters, or a name that MLflow keeps for itself.
    """
    if not _ALIAS.fullmatch(alias) or _RESERVED_ALIAS.fullmatch(alias):
        limit = "1 to 40 of a-z, 0-9 and '-', from a letter on, not 'latest' or 'v' and a number"
        raise UsageError("alias", value=alias, limit=limit, mend="choose champion, challenger or shadow")


def _before(named: list[int]) -> list[int]:
    """What an alias named, without the newest version and its repetitions at the end."""
    end = len(named)
    while end and named[end - 1] == named[-1]:
        end -= 1
    return named[:end]


def _version(found: Any) -> Version:
    tags = found.tags
    return Version(
        number=int(found.version),
        uri=tags["tastemaker.uri"],
        sha256=tags["tastemaker.sha256"],
        created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC).isoformat(),
        run_id=found.run_id or None,
        metrics=json.loads(tags["tastemaker.metrics"]),
    )
