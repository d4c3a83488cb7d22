"""Runs, versions and aliases of bundles, in MLflow. Replicas never import this: they read `registry.live`.

A catalogue is a registered model, a bundle one version of it. MLflow's aliases say what is live; each move of
one is also kept as a tag of the registered model, written before the move and never changed: the history.
"""

import getpass
import json
import re
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal
from uuid import uuid4

from tastemaker.bundle.manifest import BundleRef
from tastemaker.errors import RegistryError, UsageError
from tastemaker.registry import history
from tastemaker.registry.history import AliasMove
from tastemaker.registry.run import Runs
from tastemaker.registry.store import found_or_none, registry_errors, registry_lock
from tastemaker.registry.versions import Named, Version, version_of
from tastemaker.types import catalogue_name

_ALIAS = re.compile(r"[a-z][a-z0-9-]{0,39}")
_RESERVED_ALIAS = re.compile(r"latest|v[0-9]+")
_MAX_TEXT = 1000


class Registry(Runs):
    """The registry that the settings name; opening the embedded one makes it.

    Raises:
        RegistryError: From here and from every method, where MLflow cannot be reached or refuses.
    """

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
            return version_of(
                found[0] if found else self._client.create_model_version(name, source, run_id, tags)
            )

    def versions(self, catalogue: str) -> list[Version]:
        """All versions of the catalogue, oldest first."""
        with registry_errors(f"list versions of catalogue {catalogue}"):
            found = self._search(f"name='{catalogue_name(catalogue)}'")
        made = (version_of(one) for one in found if "tastemaker.uri" in one.tags)
        return sorted(made, key=lambda version: version.number)

    def version(self, catalogue: str, number: int | str) -> Version:
        """A version by its number, or the one that an alias names.

        Raises:
            RegistryError: There is no such version or alias.
        """
        name = catalogue_name(catalogue)
        wanted = self._aliases(name).get(number) if isinstance(number, str) else number
        found = self._bundle(name, wanted) if wanted else None
        if found is None:
            mend = "`tastemaker bundles list` shows what there is"
            raise RegistryError(f"catalogue {name} has no version or alias {number}", mend=mend)
        return found

    def aliases(self, catalogue: str) -> dict[str, Version]:
        """What every alias names now that names a bundle; empty for a catalogue that nothing was published for."""
        return {alias: version for alias, version in self.named(catalogue).items() if version is not None}

    def named(self, catalogue: str) -> dict[str, Version | None]:
        """The same with aliases that were pointed, in MLflow, at a version that is no bundle: None for those."""
        return dict(self.read_named(catalogue).aliases)

    def read_named(self, catalogue: str, seen: Named | None = None) -> Named:
        """What every alias names now, by one request where all of it was `seen` before.

        Versions that were seen are not read again: what they were made of never changes.
        """
        name = catalogue_name(catalogue)
        model = self._model(name)
        if model is None:
            return Named(0, {})
        created_ms, numbers = int(model.creation_timestamp), _numbers(model)
        known = seen.known(created_ms) if seen else {}
        versions = {
            number: known.get(number) or self._bundle(name, number) for number in set(numbers.values())
        }
        return Named(created_ms, {alias: versions[number] for alias, number in sorted(numbers.items())})

    def set_alias(
        self,
        catalogue: str,
        alias: str,
        number: int,
        actor: str,
        reason: str,
        *,
        forced: bool = False,
        expected: Mapping[str, int | None] | None = None,
    ) -> AliasMove:
        """Points an alias at a version, and keeps who did it and why. `promotion.promote` asks the gates first.

        Args:
            catalogue: Whose.
            alias: What is moved.
            number: The version.
            actor: Who moves it.
            reason: Why.
            forced: Whether gates that refused were overridden.
            expected: Versions that aliases must still name; None for one that must name nothing.

        Raises:
            RegistryError: There is no such version, or another alias moved meanwhile.
            UsageError: The alias or the reason is not one.
        """
        with self._lock():
            self._check_unmoved(catalogue, expected or {})
            return self._move(catalogue, alias, number, actor, reason, kind="set", forced=forced)

    def remove_alias(self, catalogue: str, alias: str, actor: str, reason: str) -> AliasMove | None:
        """Takes an alias away, and keeps who did it and why; None where it names nothing."""
        with self._lock():
            if alias not in self._aliases(catalogue_name(catalogue)):
                return None
            return self._move(catalogue, alias, None, actor, reason, kind="set", forced=False)

    def rollback(
        self, catalogue: str, alias: str, actor: str | None = None, reason: str = "rolled back"
    ) -> Version:
        """Points an alias back at what it named before; a second rollback goes one step further back.

        Raises:
            RegistryError: The alias never named another version.
        """
        with self._lock():
            self._note_outside_moves(catalogue)
            back = history.rollback_target(self.history(catalogue), alias)
            if back is None:
                what = f"alias {alias} of catalogue {catalogue} named no other version before"
                raise RegistryError(what, mend="promote a version instead")
            actor = actor or getpass.getuser()
            self._move(catalogue, alias, back, actor, reason, kind="rollback", forced=False)
        return self.version(catalogue, back)

    def history(self, catalogue: str) -> list[AliasMove]:
        """All moves of all aliases, oldest first."""
        model = self._model(catalogue_name(catalogue))
        return history.read_moves(model.tags) if model is not None else []

    def live_at(self, catalogue: str, alias: str, timestamp_ms: int) -> AliasMove | None:
        """The move that decided what an alias named at a time; None where it named nothing yet."""
        return history.live_at(self.history(catalogue), alias, timestamp_ms)

    def note_outside_moves(self, catalogue: str) -> list[AliasMove]:
        """Keeps moves that were made in MLflow's own UI or API since; each is kept once, whoever sees it."""
        with self._lock():
            return self._note_outside_moves(catalogue)

    def tags(self, catalogue: str, number: int) -> dict[str, str]:
        """All tags of a version."""
        name = catalogue_name(catalogue)
        with registry_errors(f"read version {number}"):
            found = found_or_none(lambda: self._client.get_model_version(name, str(number)))
        return dict(found.tags) if found else {}

    def tag(self, catalogue: str, number: int, tags: Mapping[str, str]) -> None:
        """Writes tags on a version, such as what the gates said."""
        with registry_errors(f"tag version {number}"):
            for key, value in tags.items():
                self._client.set_model_version_tag(catalogue_name(catalogue), str(number), key, value)

    def _move(
        self,
        catalogue: str,
        alias: str,
        number: int | None,
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
        name, to = (
            catalogue_name(catalogue),
            None if number is None else self.version(catalogue, number).number,
        )
        self._note_outside_moves(name)
        past = self.history(name)
        now_ms = max([time.time_ns() // 1_000_000, *(move.timestamp_ms + 1 for move in past[-1:])])
        move = AliasMove(now_ms, alias, to, self._aliases(name).get(alias), actor, reason, kind, forced)
        with registry_errors(f"move alias {alias}"):
            self._keep(name, move, uuid4().hex[:16])
            if to is None:
                self._client.delete_registered_model_alias(name, alias)
            else:
                self._client.set_registered_model_alias(name, alias, str(to))
        return move

    def _check_unmoved(self, catalogue: str, expected: Mapping[str, int | None]) -> None:
        now = self._aliases(catalogue_name(catalogue)) if expected else {}
        for alias, number in expected.items():
            if now.get(alias) != number:
                raise RegistryError(
                    f"version of alias {alias}", value=now.get(alias, "none"), limit=number or "none",
                    mend="it was moved meanwhile: ask again",
                )  # fmt: skip

    def _note_outside_moves(self, catalogue: str) -> list[AliasMove]:
        """Under the lock: who moves an alias writes the move before it moves the alias."""
        name = catalogue_name(catalogue)
        model = self._model(name)
        if model is None:
            return []
        aliases = _numbers(model)
        now_ms = time.time_ns() // 1_000_000
        found = history.outside_moves(history.read_moves(model.tags), aliases, now_ms)
        with registry_errors("keep a move that was made in MLflow"):
            for move, mark in found:
                self._keep(name, move, mark)
        return [move for move, _ in found]

    def _keep(self, name: str, move: AliasMove, mark: str) -> None:
        self._client.set_registered_model_tag(name, *history.tag_of(move, mark))

    def _lock(self) -> AbstractContextManager[None]:
        return registry_lock(self._home)

    def _model(self, name: str) -> Any:
        with registry_errors(f"read catalogue {name}"):
            return found_or_none(lambda: self._client.get_registered_model(name))

    def _aliases(self, name: str) -> dict[str, int]:
        model = self._model(name)
        return {} if model is None else _numbers(model)

    def _bundle(self, name: str, number: int) -> Version | None:
        """A version; None where there is no such one, or it was not made of a bundle."""
        with registry_errors(f"read version {number}"):
            found = found_or_none(lambda: self._client.get_model_version(name, str(number)))
        return version_of(found) if found and "tastemaker.uri" in found.tags else None

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


def _numbers(model: Any) -> dict[str, int]:
    """The number of the version that each alias of a registered model names."""
    return {alias: int(number) for alias, number in model.aliases.items()}
