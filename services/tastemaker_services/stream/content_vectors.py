"""Encodes put items for the content spaces of live bundles, where the encoder is too heavy for the graph's processes."""

import itertools
from collections.abc import Iterator
from typing import Final

import redis

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.data.item_rows import table_of
from tastemaker.features.content import ContentSpace, config_in, is_heavy, space_in
from tastemaker.home import Home
from tastemaker.registry.live import read_live
from tastemaker.state.item_vectors import without_vectors, write_vectors
from tastemaker.state.items import PutItems
from tastemaker.state.keys import Keys

AT_ONCE: Final = 256


class ContentVectors:
    """Keeps up with the catalogue. For one thread.

    Args:
        settings: Where bundles are.
        home: The same.
        client: Of the role `state.url`.
        keys: Of the catalogue.
    """

    def __init__(self, settings: Settings, home: Home, client: redis.Redis, keys: Keys) -> None:
        self._store, self._home = BundleStore.of(settings, home), home
        self._client, self._keys = client, keys
        self._put = PutItems(client, keys)
        self._spaces: dict[str, tuple[ContentSpace, ...]] = {}
        self._seen: dict[str, dict[str, str]] = {}

    def encode(self) -> int:
        """Encodes those of some items that have no vector of their newest row yet, for one space; gives how many were seen.

        Raises:
            UsageError: Another process is at it.
            StateError: Redis/Valkey cannot be reached.
            BundleError: A live bundle cannot be read.
            MissingExtraError: Its encoder is not installed here.
        """
        with self._home.lock("vectors"):
            spaces = self._live_spaces()
            if spaces and self._put.poll().restarted:
                self._seen = {}
            live = {space.fingerprint for space in spaces}
            self._seen = {name: seen for name, seen in self._seen.items() if name in live}
            return next((num for space in spaces if (num := self._some(space))), 0)

    def _some(self, space: ContentSpace) -> int:
        seen = self._seen.setdefault(space.fingerprint, {})
        rows = ((i, row) for i, row in self._put.rows.items() if row is not None and seen.get(i) != row)
        block = dict(itertools.islice(rows, AT_ONCE))
        wanted = without_vectors(self._client, self._keys, space.fingerprint, block)
        if wanted:
            vectors = space.encode(table_of(wanted))
            write_vectors(self._client, self._keys, space.fingerprint, wanted, vectors)
        seen |= block
        return len(block)

    def _live_spaces(self) -> list[ContentSpace]:
        live = read_live(self._client, self._keys)
        versions = {version.sha256: version for version in live.aliases.values()} if live else {}
        self._spaces = {sha256: space for sha256, space in self._spaces.items() if sha256 in versions}
        for sha256, version in versions.items():
            if sha256 not in self._spaces:
                self._spaces[sha256] = tuple(_heavy_spaces(Bundle.open(self._store, version.ref)))
        distinct = {space.fingerprint: space for spaces in self._spaces.values() for space in spaces}
        return list(distinct.values())


def _heavy_spaces(bundle: Bundle) -> Iterator[ContentSpace]:
    """The content spaces of a bundle and of its sources' models, where the graph's processes do not encode in them themselves."""
    if bundle.has("content.json"):
        space: ContentSpace = bundle.model("content", ContentSpace)
        if is_heavy(space.config):
            yield space
    for source in bundle.json("pipeline.json")["retrieval"]["sources"]:
        name = source["name"]
        model = bundle.json(f"{name}.json").get("model", {}) if bundle.has(f"{name}.json") else {}
        config = config_in(model)
        if config is not None and is_heavy(config):
            space_of_model = space_in(model, bundle.tensors(f"{name}.safetensors"))
            if space_of_model is not None:
                yield space_of_model
