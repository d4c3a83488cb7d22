"""Keeps the vectors of users' free texts those of the champion's content space; in the consumers' processes."""

import redis

from tastemaker.bundle.manifest import BundleRef
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.features.content import ContentSpace
from tastemaker.features.interests import encode_interests, mark_texts
from tastemaker.home import Home
from tastemaker.registry.live import CHAMPION, read_live
from tastemaker.state.keys import Keys
from tastemaker_services.gateway.face import fingerprint_of


class Interests:
    """Encodes what is marked. Not thread-safe.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        home: Holds the archived profiles.
        store: Of the bundles.
    """

    def __init__(self, client: redis.Redis, keys: Keys, home: Home, store: BundleStore) -> None:
        self._client, self._keys, self._home, self._store = client, keys, home, store
        self._ref: BundleRef | None = None
        self._space: ContentSpace | None = None

    def work(self) -> int:
        """Encodes some texts; all of them anew where the champion has another content space. Gives how many users.

        Raises:
            StateError: Redis/Valkey cannot be reached.
            BundleError: The champion cannot be read.
            DataError: The archived profiles cannot be read.
            MissingExtraError: The space's encoder is not installed.
        """
        self._follow()
        return encode_interests(self._client, self._keys, self._space) if self._space else 0

    def _follow(self) -> None:
        live = read_live(self._client, self._keys)
        champion = live.aliases.get(CHAMPION) if live else None
        if champion is None or champion.ref == self._ref:
            return
        bundle, known = Bundle.open(self._store, champion.ref), self._space
        fingerprint = fingerprint_of(bundle)
        if fingerprint is None:
            self._space = None
        elif known is None or fingerprint != known.fingerprint:
            space = bundle.model("content", ContentSpace)
            mark_texts(self._client, self._keys, self._home)
            self._space = space
        self._ref = champion.ref
