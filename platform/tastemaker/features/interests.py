"""What users said of their interests in their own words, as vectors of a content space, made in the background.

Not in the request, since an encoder may take its time.
"""

import itertools
from typing import Any, Final

import pyarrow.compute as pc
import redis

from tastemaker.features.content import ContentSpace
from tastemaker.home import Home
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.marks import some_marked
from tastemaker.users.archive import read_profiles
from tastemaker.users.profile import Interest, Onboarding
from tastemaker.users.profiles import keep_interest, read_parts

MOST_AT_ONCE: Final = 200
_MARKS: Final = 1000


def mark_texts(client: redis.Redis, keys: Keys, home: Home) -> None:
    """Marks all users with a text, as for another content space.

    Raises:
        StateError: Redis/Valkey cannot be reached.
        DataError: The archived profiles cannot be read.
    """
    profiles = read_profiles(home, keys.catalogue)
    found: Any = profiles.filter(pc.is_valid(profiles["onboarding"]))["user_id"].to_pylist()
    for start in range(0, len(found), _MARKS):
        with state_errors("mark interests"):
            pipe: Any = client.pipeline(transaction=False)
            for user_id in found[start : start + _MARKS]:
                pipe.sadd(keys.interests(keys.partition(user_id)), user_id)
            pipe.execute()


def encode_interests(client: redis.Redis, keys: Keys, space: ContentSpace) -> int:
    """Encodes the texts of some marked users; gives how many users. Call it again while it gives any.

    Raises:
        StateError: Redis/Valkey cannot be reached: the marks are still there.
        MissingExtraError: The encoder is not installed.
    """
    sets = [keys.interests(p) for p in range(keys.partitions)]
    marked = some_marked(client, sets, MOST_AT_ONCE, "interests")
    kept = read_parts(client, keys, list(itertools.chain(*marked.values())))
    answers = {user_id: parts.get("onboarding", "") for user_id, parts in kept.items()}
    texts = {user_id: Onboarding.model_validate_json(text or "{}").text for user_id, text in answers.items()}
    wanted = [user_id for user_id, text in texts.items() if text]
    vectors = space.encode_texts([texts[user_id] for user_id in wanted]).tolist() if wanted else []
    encoded = dict(zip(wanted, vectors, strict=True))
    for user_id, onboarding in answers.items():
        vector = encoded.get(user_id)
        interest = None if vector is None else Interest(fingerprint=space.fingerprint, vector=tuple(vector))
        keep_interest(client, keys, user_id, onboarding, interest)
    return len(answers)
