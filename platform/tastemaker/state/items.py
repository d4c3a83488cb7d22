"""What was put into and taken out of a catalogue while it serves: rows by item id, and the order in which they came.

A row is text that only its writer and reader understand; an empty one says that the item is deleted. Every change has an
epoch of its own, so that a reader asks for what is new alone. The order of first putting never changes and never loses
an item: whoever reads it numbers new items as all others do. All lies in one slot, so that one script writes a batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from uuid import uuid4

import redis
from redis.asyncio import Redis as AsyncRedis

from tastemaker.errors import StateError
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys

MOST_ITEMS: Final = 1_000_000
"""That may ever be put into one catalogue; imports are not counted."""
_PAGE: Final = 500
_WAIT_DURABLE_MS: Final = 2000
# KEYS: rows, order, changes, head. ARGV: a lineage, the cap, then item ids and rows in turn.
# Gives for each: 1 changed, 2 deleted though never put, 0 was so already, -1 no room for a new item.
_WRITE = """
redis.call('HSETNX', KEYS[4], 'lineage', ARGV[1])
local outcome = {}
for i = 3, #ARGV, 2 do
  local id, row = ARGV[i], ARGV[i + 1]
  local is_new = row ~= '' and not redis.call('ZSCORE', KEYS[2], id)
  if redis.call('HGET', KEYS[1], id) == row then
    outcome[#outcome + 1] = 0
  elseif is_new and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[2]) then
    outcome[#outcome + 1] = -1
  else
    if is_new then redis.call('ZADD', KEYS[2], redis.call('ZCARD', KEYS[2]), id) end
    redis.call('ZADD', KEYS[3], redis.call('HINCRBY', KEYS[4], 'epoch', 1), id)
    local never_put = row == '' and redis.call('HEXISTS', KEYS[1], id) == 0
    redis.call('HSET', KEYS[1], id, row)
    outcome[#outcome + 1] = never_put and 2 or 1
  end
end
return outcome
"""
# KEYS: as above. ARGV: the reader's lineage, its epoch, how many places of the order it knows, most of each to give.
_READ = """
local lineage = redis.call('HGET', KEYS[4], 'lineage')
if not lineage then return {'', {}, {}, {}} end
local epoch, known = ARGV[2], tonumber(ARGV[3])
if lineage ~= ARGV[1] then epoch, known = '0', 0 end
local order = redis.call('ZRANGE', KEYS[2], known, known + tonumber(ARGV[4]) - 1)
local found = redis.call('ZRANGE', KEYS[3], '(' .. epoch, '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[4], 'WITHSCORES')
local ids = {}
for i = 1, #found, 2 do ids[#ids + 1] = found[i] end
local rows = {}
if #ids > 0 then rows = redis.call('HMGET', KEYS[1], unpack(ids)) end
return {lineage, order, found, rows}
"""


class Written(NamedTuple):
    """What became of a batch, in its order: whether each row changed something, None where there is no room for it.

    `num_never_put` of the changes delete items that nobody ever put: imported ones, or ones that nobody knows.
    """

    changed: list[bool | None]
    num_never_put: int = 0


@dataclass(frozen=True)
class ItemChanges:
    """What a reader did not know yet. `rows` has the newest row of each changed item, None where it is deleted.

    `order` continues the order of first putting that the reader knows; where `restarted`, all is given from the start:
    state was lost, and whatever came from it before is void.
    """

    lineage: str = ""
    epoch: int = 0
    restarted: bool = False
    order: list[str] = field(default_factory=list)
    rows: dict[str, str | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.restarted or self.order or self.rows)


class PutItems:
    """All that was put and deleted, as one process knows it. One thread at a time.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self.lineage, self.epoch = "", 0
        self.order: list[str] = []
        self.rows: dict[str, str | None] = {}

    def everything(self) -> ItemChanges:
        """All of it as changes, for who begins now."""
        if not self.lineage:
            return ItemChanges()
        return ItemChanges(self.lineage, self.epoch, True, self.order.copy(), self.rows.copy())

    def poll(self) -> ItemChanges:
        """Reads what is new, all of it; costs one exchange where nothing is.

        Raises:
            StateError: Redis/Valkey cannot be reached; what is known stays.
        """
        lineage, epoch, num_known = self.lineage, self.epoch, len(self.order)
        order: list[str] = []
        rows: dict[str, str | None] = {}
        while True:
            reply = _page(self._client, self._keys, lineage, epoch, num_known + len(order))
            if not reply.lineage:  # nothing was ever put, or all is lost and not yet restored
                return ItemChanges()
            if reply.lineage != lineage:
                lineage, epoch, num_known, order, rows = reply.lineage, 0, 0, [], {}
            order += reply.order
            rows |= reply.rows
            epoch = reply.epoch or epoch
            if max(len(reply.order), len(reply.rows)) < _PAGE:
                break
        return self._keep(ItemChanges(lineage, epoch, lineage != self.lineage, order, rows))

    def know(self, changes: ItemChanges) -> None:
        """Takes as known what another process has read."""
        self._keep(changes)

    def _keep(self, changes: ItemChanges) -> ItemChanges:
        if changes.restarted:
            self.order, self.rows = [], {}
        self.lineage, self.epoch = changes.lineage, changes.epoch
        self.order += changes.order
        self.rows |= changes.rows
        return changes


class _Page(NamedTuple):
    lineage: str
    order: list[str]
    rows: dict[str, str | None]
    epoch: int


def _page(client: redis.Redis, keys: Keys, lineage: str, epoch: int, num_known: int) -> _Page:
    with state_errors("read what was put into the catalogue"):
        reply: Any = client.eval(_READ, 4, *_keys(keys), lineage, str(epoch), str(num_known), str(_PAGE))
    found, order, scored, rows = reply
    given = zip(scored[0::2], rows, strict=True)
    newest = int(float(scored[-1])) if scored else 0
    return _Page(found, order, {item_id: row or None for item_id, row in given}, newest)


def write_items(
    client: redis.Redis, keys: Keys, rows: Mapping[str, str | None], *, durable: bool = True
) -> Written:
    """Puts items (a row each) or deletes them (None), all at once.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        rows: By item id. A row that stands there already changes nothing.
        durable: Return only after the server's append-only file was flushed (WAITAOF).

    Raises:
        StateError: Not written, or not known to be on disk. Writing the same again does no harm.
    """
    with state_errors("write items"):
        pipe: Any = client.pipeline(transaction=False)
        _queue(pipe, keys, rows, durable)
        return _outcome(pipe.execute(), durable)


async def write_items_async(
    client: AsyncRedis, keys: Keys, rows: Mapping[str, str | None], *, durable: bool = True
) -> Written:
    """The same as `write_items`, for asyncio."""
    with state_errors("write items"):
        pipe: Any = client.pipeline(transaction=False)
        _queue(pipe, keys, rows, durable)
        return _outcome(await pipe.execute(), durable)


def _queue(pipe: Any, keys: Keys, rows: Mapping[str, str | None], durable: bool) -> None:
    words = [word for item_id, row in rows.items() for word in (item_id, row or "")]
    pipe.eval(_WRITE, 4, *_keys(keys), uuid4().hex, str(MOST_ITEMS), *words)
    if durable:
        pipe.execute_command("WAITAOF", 1, 0, _WAIT_DURABLE_MS)


def _outcome(replies: Sequence[Any], durable: bool) -> Written:
    if durable and int(replies[1][0]) < 1:
        raise StateError("items are not yet on disk", mend="send the batch again; that does no harm")
    outcomes: list[int] = replies[0]
    return Written([None if outcome < 0 else bool(outcome) for outcome in outcomes], outcomes.count(2))


def _keys(keys: Keys) -> tuple[str, str, str, str]:
    return keys.put_items, keys.put_order, keys.put_changes, keys.put_head
