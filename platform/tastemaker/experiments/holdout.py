"""A catalogue's holdout: users who are in no experiment, whatever runs, so that all experiments together can be judged by them."""

from collections.abc import Sequence
from typing import Any

import redis
from pydantic import Field

from tastemaker.errors import ExperimentError
from tastemaker.experiments.history import Change
from tastemaker.experiments.layers import held_out
from tastemaker.experiments.store import LOCAL, TIME_SCRIPT, ExperimentStore, ms_of
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.strict import Strict

HISTORY = ":holdout"
"""Stands for a name of an experiment, which has no colon."""


class Holdout(Strict):
    """A share of the users, by a hash of its own. A larger share keeps all users of a smaller one."""

    share: float = Field(0.0, ge=0, le=0.5, description="of all users; 0: nobody")
    salt: str = Field(
        "holdout",
        min_length=1,
        max_length=64,
        pattern="^[^\x00]*$",
        description="another salt takes other users",
    )

    def holds(self, user_id: str) -> bool:
        """Whether a user is in it."""
        return self.share > 0 and held_out(self.salt, self.share, user_id)


def decode_holdout(text: Any) -> Holdout:
    """The holdout as kept; of a catalogue that has none, one that holds nobody."""
    return Holdout() if text is None else Holdout.model_validate_json(str(text))


class HoldoutStore:
    """The holdout of a catalogue, in Redis/Valkey."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._experiments = ExperimentStore(client, keys)

    def get(self) -> Holdout:
        """As it is."""
        with state_errors("read the holdout"):
            return decode_holdout(self._client.get(self._keys.holdout))

    def put(
        self, holdout: Holdout, *, actor: str = LOCAL, reason: str = "", reassign: bool = False
    ) -> Holdout:
        """Sets it.

        Raises:
            ExperimentError: An experiment runs, whose units would leave or come, and `reassign` is not asked for.
        """
        running = [one.name for one in self._experiments.list() if one.state == "running"]
        old = self.get()
        if old == holdout:
            return old
        if running and not reassign:
            raise ExperimentError(
                f"another holdout would take users out of {', '.join(running)} or let them in",
                mend="stop what runs first, or ask for it (reassign)",
            )
        with state_errors("set the holdout"):
            at: Any = self._client.eval(TIME_SCRIPT, 1, self._keys.holdout)
            differ = {name: [getattr(old, name), getattr(holdout, name)] for name in ("share", "salt")}
            change = Change(
                version=0,
                at_ms=ms_of(at),
                actor=actor[:200],
                action="holdout",
                reason=reason[:2000],
                changes=differ,
            )
            pipe: Any = self._client.pipeline(transaction=True)
            pipe.set(self._keys.holdout, holdout.model_dump_json())
            pipe.rpush(self._keys.experiment_history(HISTORY), change.model_dump_json())
            pipe.execute()
        return holdout

    def history(self) -> Sequence[Change]:
        """All changes, the oldest first."""
        return self._experiments.history(HISTORY)

    def since_ms(self) -> int:
        """When it became what it is; 0 where it never changed."""
        return max((change.at_ms for change in self.history()), default=0)
