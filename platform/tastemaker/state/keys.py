"""Every key that Tastemaker keeps in Redis/Valkey, spelled once.

Braces are Redis hash tags: all keys of one partition share a slot, so that one script may write them
together; so do all catalogue-wide keys. Anything that belongs to a user lies in the user's partition.
"""

import zlib
from dataclasses import dataclass


def partition_of(user_id: str, partitions: int) -> int:
    """The partition of a user: CRC-32 (IEEE) of the id's UTF-8 bytes, modulo the number of partitions.

    >>> partition_of("123456789", 2**32) == 0xCBF43926  # the check value of CRC-32
    True
    >>> partition_of("user-1", 64)
    20
    """
    return zlib.crc32(user_id.encode()) % partitions


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one catalogue with its fixed number of partitions.

    >>> Keys("shop", 64).events(3)
    'tm:{shop:3}:events'
    """

    catalogue: str
    partitions: int

    def partition(self, user_id: str) -> int:
        """The partition that a user's keys lie in."""
        return partition_of(user_id, self.partitions)

    def _shared(self, name: str) -> str:
        return f"tm:{{{self.catalogue}}}:{name}"

    def _in(self, partition: int, name: str) -> str:
        return f"tm:{{{self.catalogue}:{partition}}}:{name}"

    @property
    def record(self) -> str:
        """Hash: what was fixed when the catalogue came to be (`partitions`)."""
        return self._shared("record")

    @property
    def live(self) -> str:
        """JSON: generation, and for each alias its version, URI and manifest hash."""
        return self._shared("live")

    @property
    def ready(self) -> str:
        """Hash: stage/replica -> JSON of the bundles that this replica can answer from, and when."""
        return self._shared("ready")

    @property
    def experiments(self) -> str:
        """Hash: experiment name -> its definition as JSON."""
        return self._shared("experiments")

    @property
    def consumers(self) -> str:
        """Sorted set: token of each living stream consumer by when its heartbeat runs out."""
        return self._shared("consumers")

    @property
    def lease(self) -> str:
        """The lease of the one consumer that makes the item totals: its token, with a time to live."""
        return self._shared("consumer:lease")

    @property
    def fence(self) -> str:
        """Counter of those leases; a commit under an older one is refused."""
        return self._shared("consumer:fence")

    def partition_lease(self, partition: int) -> str:
        """The lease of the one consumer that reads a partition: its token, with a time to live."""
        return self._in(partition, "lease")

    def partition_fence(self, partition: int) -> str:
        """Counter of that partition's leases; a commit under an older one is refused."""
        return self._in(partition, "fence")

    def posterior(self, experiment: str) -> str:
        """Hash: totals of an experiment's successes and failures per variant, and their `version`."""
        return self._shared(f"posterior:{experiment}")

    def posterior_part(self, partition: int, experiment: str) -> str:
        """Hash: one partition's part of `posterior`."""
        return self._in(partition, f"posterior:{experiment}")

    def events(self, partition: int) -> str:
        """Stream of events."""
        return self._in(partition, "events")

    def decisions(self, partition: int) -> str:
        """Stream of decisions."""
        return self._in(partition, "decisions")

    def dedup(self, partition: int, window: int) -> str:
        """Set of the event ids that arrived during one window of time."""
        return self._in(partition, f"dedup:{window}")

    def offsets(self, partition: int) -> str:
        """Hash: `fence`, and per stream the last id applied to state and the last id archived to Parquet."""
        return self._in(partition, "offsets")

    def pending(self, partition: int) -> str:
        """Hash: request_id -> a decision whose reward is still open."""
        return self._in(partition, "pending")

    def closing(self, partition: int) -> str:
        """Sorted set: request_id by the time at which its attribution window closes."""
        return self._in(partition, "closing")

    def history(self, user_id: str) -> str:
        """List of item ids, newest first."""
        return self._in(self.partition(user_id), f"history:{user_id}")

    def user(self, user_id: str) -> str:
        """A user's record, see `features.user_state`."""
        return self._in(self.partition(user_id), f"user:{user_id}")

    @property
    def every_user(self) -> str:
        """What a scan for all users' records matches."""
        return f"tm:{{{self.catalogue}:*}}:user:*"

    @property
    def every_history(self) -> str:
        """What a scan for all users' histories matches, and keys of users whose id looks like one."""
        return f"tm:{{{self.catalogue}:*}}:history:*"

    @staticmethod
    def user_of(record: str) -> str:
        """The user whose record a key that `every_user` matches is.

        >>> Keys.user_of(Keys("shop", 64).user("a:user:b"))
        'a:user:b'
        """
        return record.partition("}:user:")[2]

    def stored_list(self, user_id: str) -> str:
        """JSON: the user's list that was computed ahead, with a time to live; see `state.lists`."""
        return self._in(self.partition(user_id), f"list:{user_id}")

    def cached_lists(self, user_id: str) -> str:
        """Hash: what was asked -> the list that was answered lately; in `state.cache_url`."""
        return self._in(self.partition(user_id), f"cached:{user_id}")

    def item_counters(self, partition: int) -> str:
        """Hash: item_id -> what this partition's users did with it, see `features.counters`."""
        return self._in(partition, "items")

    def changed_users(self, partition: int) -> str:
        """Set of user ids whose record has changed since it was projected."""
        return self._in(partition, "changed-users")

    def changed_items(self, partition: int) -> str:
        """Set of item ids whose counters here have changed since the totals were made."""
        return self._in(partition, "changed-items")

    @property
    def item_totals(self) -> str:
        """Hash: item_id -> counters over all partitions."""
        return self._shared("items")

    @property
    def item_totals_guard(self) -> str:
        """Hash: `fence` of the lease under which the item totals and the rankings were last written."""
        return self._shared("items:guard")

    @property
    def changed_totals(self) -> str:
        """Set of item ids whose totals have changed since they were projected."""
        return self._shared("changed-totals")

    def ranking(self, name: str) -> str:
        """Sorted set of item ids: what is `trending` or `popular`, globally or in a category or country."""
        return self._shared(f"ranking:{name}")

    def erased(self, partition: int) -> str:
        """Hash: SHA-256 of an erased user's id -> when, in ms; what is older than that of this user is not applied."""
        return self._in(partition, "erased")

    @property
    def erasures(self) -> str:
        """Hash: receipt -> the user id that is to be erased; gone when it is done."""
        return self._shared("erasures")

    def dead_letters(self, partition: int) -> str:
        """Stream of log entries that could not be applied, each with its reason."""
        return self._in(partition, "dead-letters")

    def assignment(self, experiment: str, epoch: int, unit: str) -> str:
        """JSON: what a bandit drew for a unit in an epoch."""
        return self._in(self.partition(unit), f"assignment:{experiment}:{epoch}:{unit}")

    @staticmethod
    def unit_of(assignment: str) -> str:
        """The unit of an assignment's key.

        >>> Keys.unit_of(Keys("shop", 64).assignment("front", 3, "a:b"))
        'a:b'
        """
        return assignment.partition("}:")[2].split(":", 3)[3]

    def every_assignment(self, unit: str) -> str:
        """What a scan for a unit's assignments matches, and at times another's: ids may hold colons."""
        escaped = "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in unit)
        return self._in(self.partition(unit), f"assignment:*:*:{escaped}")
