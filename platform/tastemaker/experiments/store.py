"""Where a catalogue's experiments are kept, and the only way to change them: checked, versioned, each change in the history."""

import builtins
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import redis

from tastemaker.errors import ExperimentError, UnknownExperimentError
from tastemaker.experiments import starting
from tastemaker.experiments.allocation import Fixed, encoded_as
from tastemaker.experiments.definition import Course, Experiment
from tastemaker.experiments.edits import reassigned
from tastemaker.experiments.history import Change, change_between
from tastemaker.experiments.kept import decode_experiments, encode_experiment
from tastemaker.registry.live import LiveAliases, read_live
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys

LOCAL = "local"
"""Actor of changes by code that names nobody."""
TIME_SCRIPT = "return redis.call('TIME')"
T = TypeVar("T")
_Step = Callable[[Experiment, Sequence[Experiment], int], Experiment]


class ExperimentStore:
    """The experiments of a catalogue, in Redis/Valkey. Times are by that server's clock.

    Every change takes who makes it (`actor`) and why (`reason`).
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys

    def create(self, experiment: Experiment, *, actor: str = LOCAL, reason: str = "") -> Experiment:
        """Keeps an experiment, and starts it unless it is a draft; as it is kept.

        Raises:
            ConfigError: A variant's policy has an unknown key or a wrong value, or a metric is unknown or cannot be used so.
            ExperimentError: Its name is taken, or it is to run and cannot, see `start`.
        """
        starting.check_definition(experiment)
        live = self._live() if experiment.state == "running" else None

        def work(pipe: Any) -> Experiment:
            now_ms = self._now_ms(pipe)
            others = decode_experiments(pipe.hgetall(self._keys.experiments))
            if any(other.name == experiment.name for other in others):
                raise ExperimentError(f"experiment {experiment.name} exists", mend="choose another name")
            fresh = experiment.model_copy(update={"version": 1, "course": Course()})
            if fresh.state == "running":
                fresh = starting.started(fresh, others, live, now_ms)
            self._put(pipe, fresh, change_between(None, fresh, now_ms, actor, reason))
            return fresh

        return self._transaction(f"create experiment {experiment.name}", work)

    def start(self, name: str, *, actor: str = LOCAL, reason: str = "", reassign: bool = False) -> Experiment:
        """Lets a draft or stopped experiment assign units. One that was stopped assigns them as before.

        Args:
            name: Its name.
            actor: Who starts it.
            reason: Why.
            reassign: Whether it may get other units than it had, where others have taken those meanwhile.

        Raises:
            ExperimentError: There is none of that name, it runs, its layer is full, a variant's alias is missing, or an
                experiment of another layer changes the same stage.
        """
        live = self._live()

        def step(old: Experiment, others: Sequence[Experiment], now_ms: int) -> Experiment:
            if old.state == "running":
                raise ExperimentError(f"experiment {name} runs already", mend="stop it first")
            return starting.started(old, others, live, now_ms, reassign=reassign)

        return self._change(name, step, actor, reason)

    def stop(self, name: str, *, actor: str = LOCAL, reason: str = "") -> Experiment:
        """Ends assignment; rewards of decisions made before still join. A stopped one stays in the list.

        Raises:
            ExperimentError: There is none of that name, or it is a draft.
        """

        def step(old: Experiment, others: Sequence[Experiment], now_ms: int) -> Experiment:
            del others
            if old.state == "draft":
                raise ExperimentError(f"experiment {name} is a draft", mend="delete it")
            if old.state == "stopped":
                return old
            course = old.course.model_copy(update={"stopped_ms": now_ms})
            return old.model_copy(update={"state": "stopped", "course": course})

        return self._change(name, step, actor, reason)

    def ramp(
        self, name: str, *, traffic: float | None = None, weights: Sequence[float] | None = None,
        actor: str = LOCAL, reason: str = "", reassign: bool = False,
    ) -> Experiment:  # fmt: skip
        """Sets the share of units that take part, in place of steps to come, or a fixed split's weights.

        Raises:
            ConfigError: The share or weights are none.
            ExperimentError: See `edit`; weights are given to a bandit.
        """

        def wanted(old: Experiment) -> Experiment:
            tree = old.model_dump(mode="json")
            if traffic is not None:
                tree |= {"traffic": traffic, "ramp": []}
            if weights is not None:
                if not isinstance(old.allocation, Fixed):
                    limit = "fixed, to have weights that are set"
                    raise ExperimentError(
                        f"allocation of {name}", value=old.allocation.kind, limit=limit, mend="set traffic"
                    )
                tree["allocation"] = {"kind": "fixed", "weights": [*weights]}
            return Experiment.parse(tree, f"experiment {name}")

        return self._edit(name, wanted, actor, reason, reassign)

    def edit(
        self, experiment: Experiment, *, actor: str = LOCAL, reason: str = "", reassign: bool = False
    ) -> Experiment:
        """Replaces the definition of that name; its state and course stay, and how context is encoded unless it says that.

        Args:
            experiment: The whole new definition. Where it says a version, that must be the one that is kept.
            actor: Who changes it.
            reason: Why.
            reassign: Whether units that were assigned may get something else.

        Raises:
            ConfigError: A variant's policy has an unknown key or a wrong value, or a metric is unknown or cannot be used so.
            ExperimentError: There is none of that name, it was changed meanwhile, what was asked flips units without
                `reassign`, or it runs and could not start like this.
        """
        starting.check_definition(experiment)

        def wanted(old: Experiment) -> Experiment:
            if experiment.version not in (0, old.version):
                raise ExperimentError(
                    f"version of experiment {old.name}", value=experiment.version, limit=f"{old.version}, as kept",
                    mend="it was changed meanwhile: read it again",
                )  # fmt: skip
            return experiment

        return self._edit(experiment.name, wanted, actor, reason, reassign)

    def _edit(
        self, name: str, wanted: Callable[[Experiment], Experiment], actor: str, reason: str, reassign: bool
    ) -> Experiment:
        live = self._live()

        def step(old: Experiment, others: Sequence[Experiment], now_ms: int) -> Experiment:
            asked = wanted(old)
            kept = {"state": old.state, "version": old.version, "course": old.course}
            allocation = encoded_as(asked.allocation, old.allocation)
            new = asked.model_copy(update={**kept, "allocation": allocation})
            as_of = now_ms if old.state == "running" else old.course.stopped_ms
            why = reassigned(old, new, as_of)
            if why and not reassign:
                raise ExperimentError(
                    f"this edit of experiment {name} would change what units get that it has assigned: {'; '.join(why)}",
                    mend="start another experiment, or ask for it (reassign), which begins the count anew",
                )
            if why:
                new = starting.anew(new, now_ms)
            return starting.placed(new, others, live, now_ms) if new.state == "running" else new

        return self._change(name, step, actor, reason)

    def delete(self, name: str, *, actor: str = LOCAL, reason: str = "") -> None:
        """Removes a draft; its history stays.

        Raises:
            ExperimentError: There is none of that name, or units were assigned by it.
        """

        def work(pipe: Any) -> None:
            now_ms = self._now_ms(pipe)
            old = self._named(decode_experiments(pipe.hgetall(self._keys.experiments)), name)
            if old.has_started:
                raise ExperimentError(
                    f"experiment {name} has assigned units", mend="stop it: what it decided stays in the log"
                )
            pipe.multi()
            pipe.hdel(self._keys.experiments, name)
            gone = Change(
                version=old.version, at_ms=now_ms, actor=actor, action="delete", reason=reason, changes={}
            )
            pipe.rpush(self._keys.experiment_history(name), gone.model_dump_json())

        self._transaction(f"delete experiment {name}", work)

    def get(self, name: str) -> Experiment:
        """The experiment of that name.

        Raises:
            ExperimentError: There is none.
        """
        return self._named(self.list(), name)

    def list(self) -> tuple[Experiment, ...]:
        """All of them, drafts, running and stopped, by name."""
        with state_errors("list experiments"):
            return decode_experiments(self._client.hgetall(self._keys.experiments))

    def history(self, name: str) -> tuple[Change, ...]:
        """All changes of an experiment, the oldest first; none of one that an earlier release made.

        Raises:
            StateError: They cannot be read.
        """
        with state_errors(f"read the history of {name}"):
            entries: Any = self._client.lrange(self._keys.experiment_history(name), 0, -1)
        return tuple(Change.model_validate_json(entry) for entry in entries)

    def _change(self, name: str, step: _Step, actor: str, reason: str) -> Experiment:
        def work(pipe: Any) -> Experiment:
            now_ms = self._now_ms(pipe)
            everything = decode_experiments(pipe.hgetall(self._keys.experiments))
            old = self._named(everything, name)
            others = [other for other in everything if other.name != name]
            new = step(old, others, now_ms)
            if new == old:
                return old
            new = new.model_copy(update={"version": old.version + 1})
            self._put(pipe, new, change_between(old, new, now_ms, actor, reason))
            return new

        return self._transaction(f"change experiment {name}", work)

    def _transaction(self, doing: str, work: Callable[[Any], T]) -> T:
        with state_errors(doing):
            transaction: Any = self._client.transaction
            return cast(T, transaction(work, self._keys.experiments, value_from_callable=True))

    def _put(self, pipe: Any, experiment: Experiment, change: Change) -> None:
        pipe.multi()
        pipe.hset(self._keys.experiments, experiment.name, encode_experiment(experiment))
        pipe.rpush(self._keys.experiment_history(experiment.name), change.model_dump_json())

    def _now_ms(self, pipe: Any) -> int:
        return ms_of(pipe.eval(TIME_SCRIPT, 1, self._keys.experiments))

    def _live(self) -> LiveAliases | None:
        return read_live(self._client, self._keys)

    @staticmethod
    def _named(everything: Sequence[Experiment], name: str) -> Experiment:
        for experiment in everything:
            if experiment.name == name:
                return experiment
        known = ", ".join(sorted(experiment.name for experiment in everything)) or "none"
        raise UnknownExperimentError(
            f"no experiment {name}", limit=f"one of: {known}", mend="correct the name"
        )


def ms_of(reply: builtins.list[Any]) -> int:
    """Milliseconds since 1970 UTC in the reply to TIME."""
    seconds, microseconds = (int(part) for part in reply)
    return 1000 * seconds + microseconds // 1000
