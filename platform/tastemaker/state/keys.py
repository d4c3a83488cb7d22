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
    def forced_rung(self) -> str:
        """JSON: the rung that all answers take, see `state.forced`; with a time to live where it ends by itself."""
        return self._shared("ladder:forced")

    @property
    def ready(self) -> str:
        """Hash: stage/replica -> what that process tells of itself, see `registry.reports`."""
        return self._shared("ready")

    def loading(self, host: str) -> str:
        """The lease of the one process of a machine that loads a bundle: its token, with a time to live."""
        return self._shared(f"loading:{host}")

    def loading_fence(self, host: str) -> str:
        """Counter of that machine's leases."""
        return self._shared(f"loading-fence:{host}")

    @property
    def rules(self) -> str:
        """Hash: name of business rules -> the rules as JSON, see `stages.standing_rules`."""
        return self._shared("rules")

    @property
    def editorial(self) -> str:
        """Hash: name of an editorial list -> the list as JSON, see `stages.editorial`."""
        return self._shared("editorial")

    @property
    def recorded(self) -> str:
        """List of requests of the last hour as JSON, without their users, newest first; with a time to live."""
        return self._shared("recorded")

    @property
    def experiments(self) -> str:
        """Hash: experiment name -> its definition as JSON."""
        return self._shared("experiments")

    def experiment_history(self, name: str) -> str:
        """List: changes of an experiment as JSON, oldest first; `:holdout` for those of the holdout."""
        return self._shared(f"experiment-history:{name}")

    @property
    def holdout(self) -> str:
        """JSON: which users are in no experiment, see `experiments.holdout`."""
        return self._shared("holdout")

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

    def shown(self, user_id: str) -> str:
        """JSON: what a user's decisions with an open window showed, see `events.last_touch`; ends with the last window."""
        return self._in(self.partition(user_id), f"shown:{user_id}")

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

    def paged_lists(self, user_id: str) -> str:
        """Hash: name of a list that is shown page by page -> the list; in `state.cache_url`."""
        return self._in(self.partition(user_id), f"paged:{user_id}")

    def item_counters(self, partition: int) -> str:
        """Hash: item_id -> what this partition's users did with it, see `features.counters`."""
        return self._in(partition, "items")

    def changed_users(self, partition: int) -> str:
        """Set of user ids whose record has changed since it was projected."""
        return self._in(partition, "changed-users")

    def changed_items(self, partition: int) -> str:
        """Set of item ids whose counters here have changed since the totals were made."""
        return self._in(partition, "changed-items")

    def local_counters(self, partition: int) -> str:
        """Hash: country and item -> what it weighs there by this partition's users, see `features.countries`."""
        return self._in(partition, "items-by-country")

    def changed_local(self, partition: int) -> str:
        """Set of names in `local_counters` that have changed since they were ranked."""
        return self._in(partition, "changed-by-country")

    @property
    def item_totals(self) -> str:
        """Hash: item_id -> counters over all partitions."""
        return self._shared("items")

    @property
    def item_totals_guard(self) -> str:
        """Hash: `fence` of the lease of who last wrote totals and rankings; the totals' `version`, the `trend_window`."""
        return self._shared("items:guard")

    @property
    def changed_totals(self) -> str:
        """Set of item ids whose totals have changed since they were projected."""
        return self._shared("changed-totals")

    @property
    def put_items(self) -> str:
        """Hash: item id -> what was put, as JSON; empty where it was deleted. See `state.items`."""
        return self._shared("items:put")

    @property
    def put_order(self) -> str:
        """Sorted set: ids of all items that were ever put, by the place at which each first came, from 0."""
        return self._shared("items:order")

    @property
    def put_changes(self) -> str:
        """Sorted set: ids of put and deleted items by the epoch of their newest change."""
        return self._shared("items:changes")

    def item_vectors(self, space: str) -> str:
        """Hash: id of a put item -> its vector in a space, by the space's fingerprint."""
        return self._shared(f"items:vectors:{space}")

    @property
    def put_head(self) -> str:
        """Hash: the `epoch` of the newest change, and the `lineage` that epochs and places belong to."""
        return self._shared("items:head")

    def ranking(self, name: str) -> str:
        """Sorted set of item ids: what is `trending` or `popular`, globally or in a category or country."""
        return self._shared(f"ranking:{name}")

    @property
    def rankings(self) -> str:
        """Set of the names of all rankings that there are or were."""
        return self._shared("rankings")

    def erased(self, partition: int) -> str:
        """Hash: SHA-256 of an erased user's id -> when, in ms; what is older than that of this user is not applied."""
        return self._in(partition, "erased")

    @property
    def erasures(self) -> str:
        """Hash: receipt -> the user id that is to be erased; gone when it is done."""
        return self._shared("erasures")

    def profile(self, user_id: str) -> str:
        """Hash: what a user or the customer said of the user, by part, see `users.profile`."""
        return self._in(self.partition(user_id), f"profile:{user_id}")

    @property
    def every_profile(self) -> str:
        """What a scan for all users' profiles matches, and keys of users whose id looks like one."""
        return f"tm:{{{self.catalogue}:*}}:profile:*"

    def changed_profiles(self, partition: int) -> str:
        """Set of user ids whose profile has changed since it was archived."""
        return self._in(partition, "changed-profiles")

    def interests(self, partition: int) -> str:
        """Set of user ids whose free text is to be encoded."""
        return self._in(partition, "interests")

    def consent(self, partition: int) -> str:
        """Hash: user id -> time in ms up to which events do not count for the user, see `events.owners`."""
        return self._in(partition, "consent")

    def forgetting(self, partition: int) -> str:
        """Set of user ids whose record and history are to go, as those of users who opted out."""
        return self._in(partition, "forgetting")

    def aliases(self, partition: int) -> str:
        """Hash: user id -> the user that it was merged into."""
        return self._in(partition, "aliases")

    def moving(self, partition: int) -> str:
        """Set of user ids that were merged and whose past is still kept under them."""
        return self._in(partition, "moving")

    def outbox(self, partition: int) -> str:
        """Stream of what counts for users whom others of this partition were merged into, see `features.merging`."""
        return self._in(partition, "outbox")

    def inbox(self, partition: int) -> str:
        """List of what came here from outboxes and is to join its user, oldest first."""
        return self._in(partition, "inbox")

    def received(self, partition: int) -> str:
        """Hash: partition -> id of the newest entry of its outbox that came here."""
        return self._in(partition, "received")

    @property
    def merge_requests(self) -> str:
        """Stream of merges that were asked for and are not admitted yet."""
        return self._shared("merge-requests")

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
