"""One run of `tastemaker gc`: what goes, part by part, each removed before the next is looked at.

A version leaves the registry before its manifest leaves the store, and a manifest before its blobs: wherever a run is cut off, what is
left is whole, and the next run finds the rest, and tells what went. Nothing is moved by it, so that it may be called at any time.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import redis

from tastemaker.bundle.manifest import BundleRef, Manifest
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.sweeping import Sweeping
from tastemaker.config import Settings
from tastemaker.errors import IntegrityError, TastemakerError, UsageError
from tastemaker.events.expiry import expire_day
from tastemaker.home import Home
from tastemaker.registry.client import Registry
from tastemaker.registry.forgetting import EndedRuns, forget_version
from tastemaker.registry.versions import Version
from tastemaker.retention import bundles, checkpoints, days, runs
from tastemaker.retention.gone import Gone, Limits
from tastemaker.retention.receipts import Journal, killed_run, settle
from tastemaker.retention.versions import doomed_versions, kept_versions, read_uses, use_of
from tastemaker.state.keys import Keys

AT_ONCE: Final = 100
"""So many files of the bundle store are announced at once."""


@dataclass
class Collected:
    """What went, or would go. `kept` says why each version stays; `skipped` what was not looked at, and why.

    `going` is what is being removed: where a run is cut off, it may be gone or not. `killed` is the receipt of the run before, where
    that was killed and nobody has told of it yet.
    """

    catalogue: str
    dry_run: bool
    gone: list[Gone] = field(default_factory=list)
    kept: dict[int, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    going: Gone | None = None
    killed: dict[str, Any] | None = None

    def of(self, kind: str) -> list[Gone]:
        """What is of one kind."""
        return [one for one in self.gone if one.kind == kind]

    def sums(self) -> list[tuple[str, int, int]]:
        """Kind, number and bytes, in the order in which they went."""
        kinds = dict.fromkeys(one.kind for one in self.gone)
        return [(kind, len(self.of(kind)), sum(one.num_bytes for one in self.of(kind))) for kind in kinds]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "catalogue": self.catalogue,
            "dry_run": self.dry_run,
            "removed": [one.as_dict() for one in self.gone],
            "kept_versions": {str(number): why for number, why in self.kept.items()},
            "skipped": self.skipped,
        }


def collect(
    settings: Settings, home: Home, client: redis.Redis, keys: Keys, *, dry_run: bool = False
) -> Collected:
    """Removes what the retention settings let go, of the settings' catalogue; see `Collected`.

    Args:
        settings: Of the catalogue; `retention` says what is kept.
        home: Holds archive, trainings and, embedded, registry and bundles.
        client: Of the role `state.url`.
        keys: The catalogue's.
        dry_run: Only says what would go.

    Raises:
        UsageError: Another one is under way in this home.
        StateError: Redis/Valkey cannot be reached: nobody can tell then what is in use.
        RegistryError: MLflow cannot be reached.
        BundleError: The storage refuses.
        DataError: A file of the home cannot be read or removed, or the receipt not written.
    """
    with home.lock("gc"):
        journal = Journal(home, keys.catalogue)
        collection = _Collection(settings, home, client, keys, journal, Collected(keys.catalogue, dry_run))
        collection.done.killed = killed_run(home) if dry_run else settle(home)
        with _receipt(journal, collection.done):
            collection.run()
    return collection.done


class _Collection:
    """One run under its lock."""

    def __init__(
        self,
        settings: Settings,
        home: Home,
        client: redis.Redis,
        keys: Keys,
        journal: Journal,
        done: Collected,
    ) -> None:
        self._settings, self._home, self._client, self._keys = settings, home, client, keys
        self._journal, self.done = journal, done
        self._limits = Limits.of(settings.retention)
        self._registry, self._store = Registry(settings, home), BundleStore.of(settings, home)
        self._sweeping = Sweeping(self._store, self._limits.grace)

    def run(self) -> None:
        """All parts, in order."""
        left = self._versions()
        self._bundles(left)
        self._runs(left)
        self._checkpoints(left)
        self._days()
        self._rejects()

    def _take(self, doomed: Iterable[Gone], remove: Callable[[Gone], bool]) -> None:
        """Removes one after the other; what meanwhile came into use stays."""
        for one in doomed:
            if self.done.dry_run:
                self.done.gone.append(one)
                continue
            self._journal.removes(one)
            self.done.going = one
            if remove(one):
                self.done.gone.append(one)
            else:
                self._journal.stays(one)
            self.done.going = None

    def _announced(self, doomed: Iterator[Gone]) -> Iterator[Gone]:
        """The same, `AT_ONCE` of them looked at and announced before the first of these goes."""
        while some := [*islice(doomed, AT_ONCE)]:
            if not self.done.dry_run:
                self._journal.announces(some)
            yield from some

    def _versions(self) -> list[Version]:
        """Gives the versions that stay."""
        uses = read_uses(self._registry, self._client, self._keys)
        self.done.kept = dict(sorted(kept_versions(uses, self._limits).items()))
        self._take(doomed_versions(uses, self._limits), lambda one: self._forget(int(one.name)))
        gone = {one.name for one in self.done.of("version")}
        return [version for version in uses.versions if str(version.number) not in gone]

    def _forget(self, number: int) -> bool:
        """Whether a version went; one that came into use meanwhile stays."""

        def is_free() -> bool:
            why = use_of(number, self._registry, self._client, self._keys, self._limits)
            if why is not None:
                self.done.kept = dict(sorted({**self.done.kept, number: why}.items()))
            return why is None

        return forget_version(self._settings, self._home, number, is_free)

    def _bundles(self, left: list[Version]) -> None:
        if not self.done.dry_run:
            self._sweeping.put_back()
        if self._settings.retention.bundles is not None:
            doomed = bundles.doomed_manifests(self._sweeping, self._keys.catalogue, left)
            self._take(doomed, lambda one: self._sweeping.remove(one.name))
        without = frozenset(one.name for one in self.done.of("manifest"))
        try:
            blobs = self._announced(bundles.doomed_blobs(self._sweeping, without))
            self._take(blobs, lambda one: self._sweeping.remove(one.name))
        except IntegrityError as error:
            self.done.skipped.append(f"blobs: {error}")

    def _runs(self, left: list[Version]) -> None:
        ended = EndedRuns(self._settings, self._home)
        publishable = frozenset(runs.publishable_runs(self._home, self._keys.catalogue))
        doomed = runs.doomed_runs(ended.ended(), left, publishable, self._limits)
        if not self.done.dry_run:
            ended.purge()
        self._take(doomed, lambda one: ended.remove(one.name))
        if not self.done.dry_run:
            ended.purge()

    def _checkpoints(self, left: list[Version]) -> None:
        """A training that is under way may use any of them: then all stay."""
        kept = self._begun_from() | self._trained(left)
        catalogue = self._keys.catalogue
        try:
            with self._home.lock("training"):
                if not self.done.dry_run:
                    checkpoints.remove_leavings(self._home)
                self._take(
                    checkpoints.doomed_checkpoints(self._home, catalogue, kept, self._limits),
                    lambda one: checkpoints.remove_checkpoint(self._home, one.name),
                )
        except UsageError:
            self.done.skipped.append("checkpoints: a training is under way")

    def _trained(self, left: list[Version]) -> set[str]:
        """Folders of the runs that versions which stay were published from."""
        folders = runs.publishable_runs(self._home, self._keys.catalogue)
        return {folders[one.run_id] for one in left if one.run_id in folders}

    def _begun_from(self) -> set[str]:
        """Trainings of what is live in any catalogue of the store: the next one begins from their weights."""
        found: set[str] = set()
        for catalogue in {uri.split("/")[1] for uri in self._sweeping.manifests()}:
            for version in self._registry.aliases(catalogue).values():
                found.add(self._training_of(version.ref))
        return found

    def _training_of(self, ref: BundleRef) -> str:
        try:
            return Manifest.from_bytes(self._store.get_manifest(ref.uri, ref.sha256)[1], ref.uri).training_id
        except TastemakerError:
            return ""  # it is lost, and no training can begin from it

    def _days(self) -> None:
        first = days.first_report_day(self._client, self._keys)
        for kind, folder in days.FOLDERS.items():
            root = self._home / folder / self._keys.catalogue
            doomed = days.doomed_days(self._home, self._keys.catalogue, kind, self._limits, first)
            self._take(doomed, lambda one, root=root: expire_day(root, one.name) > 0)  # type: ignore[misc]

    def _rejects(self) -> None:
        """An import that is under way writes them anew."""
        try:
            self._take(
                days.doomed_rejects(self._home, self._keys.catalogue, self._limits),
                lambda _: days.remove_rejects(self._home, self._keys.catalogue),
            )
        except UsageError:
            self.done.going = None
            self.done.skipped.append("refused rows: an import is under way")


@contextmanager
def _receipt(journal: Journal, done: Collected) -> Iterator[None]:
    """Keeps what went, also where it then failed: `cut_off` is what was being removed then.

    Raises:
        DataError: It cannot be written.
    """
    failure = ""
    try:
        yield
    except BaseException as error:
        failure = f"{type(error).__name__}: {error}"
        raise
    finally:
        is_told = not done.dry_run and (done.gone or failure)
        cut_off = None if done.going is None else done.going.as_dict()
        journal.end({**done.as_dict(), "cut_off": cut_off, "failed": failure} if is_told else None)
