"""What the replica of one shard of the retriever does: a retriever's work on its own rows, told so that shards can be put together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tastemaker.bundle.reader import Bundle
from tastemaker.config import Settings
from tastemaker.registry.live import LiveVersion
from tastemaker.types import Query
from tastemaker_services.replicas.calls import Failed
from tastemaker_services.replicas.process import Loaded
from tastemaker_services.replicas.stages import Searching

if TYPE_CHECKING:
    from tastemaker.stages.explain import SaysHere
    from tastemaker.stages.merging import ShardAnswer
    from tastemaker.stages.pipeline_config import Part


def shard_name(number: int) -> str:
    """The name under which the replicas of a shard, counted from 0, tell of their versions."""
    return f"retriever-{number}"


class RetrieverShard(Searching):
    """Proposes candidates of one shard of the catalogue, and holds no other's vectors.

    Args:
        settings: How many shards there are.
        number: Of this one, from 0.
    """

    is_part: ClassVar[bool] = True

    def __init__(self, settings: Settings, number: int) -> None:
        self._number = number
        super().__init__(settings, shard_name(number))

    def _open(self, version: LiveVersion) -> Bundle:
        # FAISS comes with them, which the process that only describes the deployments does not need.
        from tastemaker.bundle.part import BundlePart
        from tastemaker.index.sharded import ShardOf

        shard = ShardOf(self._number, self._settings.serving.retriever.shards)
        return BundlePart.open_part(self._store, version.ref, shard)

    async def aside(self, part: "Part", calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `Mirrored.aside`; of retrieval alone."""
        assert part == "retrieve", part
        return await self._do(_answer, calls, aside=True)

    async def retrieve(self, calls: Sequence[tuple[str, Query]]) -> "list[ShardAnswer | Failed]":
        """What the sources say of own rows to each (manifest hash, query)."""
        return await self._timed("retrieve", _answer, calls)

    async def say(self, calls: Sequence[tuple[str, Query, int]]) -> "list[tuple[SaysHere, ...] | Failed]":
        """What each source says of one item here, of each (manifest hash, query, item_index)."""
        return await self._do(_say_here, calls)


def _answer(version: Loaded, rest: list[Any]) -> "ShardAnswer":
    return version.pipeline.shard_answers(rest)[0]


def _say_here(version: Loaded, rest: list[Any]) -> "tuple[SaysHere, ...]":
    query, item_index = rest
    return version.pipeline.say_here(query, item_index)
