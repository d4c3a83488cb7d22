"""Search spaces as a recipe writes them beside its defaults, and how they are searched. Not for running trials (`tuning`).

Any single value of a recipe may be written as `{default: 0.1, search: {low: 0.01, high: 1.0, log: true}}`, a range, or
as `{default: 64, search: [32, 64, 128]}`, choices. Whoever does not tune sees the default alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field

from tastemaker.errors import ConfigError
from tastemaker.strict import Strict

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Part = Literal["two_tower", "ranker"]
PARTS: tuple[Part, ...] = get_args(Part)
"""What can be tuned: the groups of a recipe that are trained, each by itself."""

_DEFAULT, _SEARCH = "default", "search"
_STEP_TOLERANCE = 1e-9


class TuneConfig(Strict):
    """How the spaces of a recipe are searched: by Optuna's TPE, its bad trials stopped by ASHA."""

    metric: str | None = Field(
        None, min_length=1, description="what trials are compared by; empty takes the part's held-out NDCG@10"
    )
    mode: Literal["max", "min"] = Field("max", description="whether more or less of it is better")
    num_trials: int = Field(20, ge=1, description="trials of a study; the first has the defaults")
    concurrency: int = Field(1, ge=1, description="trials at once; each has its own workers")
    max_epochs: int | None = Field(
        None, ge=1, description="epochs of a whole trial; empty takes the fit's own; not of click models"
    )
    grace_epochs: int = Field(
        1, ge=1, description="epochs before a trial may be stopped; of click models tenths of a fit"
    )
    reduction_factor: float = Field(
        3.0, gt=1, description="of the trials at a rung, the best 1/this go on; rungs lie this factor apart"
    )
    seed: int = Field(0, ge=0, description="of the search")


class Range(Strict):
    """Numbers between two ends, both included."""

    low: float = Field(description="least value")
    high: float = Field(description="greatest value")
    step: float | None = Field(None, gt=0, description="distance of values; empty takes any, of integers 1")
    log: bool = Field(False, description="whether the logarithm is searched evenly")


@dataclass(frozen=True)
class Space:
    """One searched value: its default, and the range or choices around it."""

    default: Any
    search: Range | tuple[Any, ...]

    @classmethod
    def parse(cls, written: Mapping[str, Any], path: str, origin: str) -> "Space":
        """The space that a recipe writes at `path`.

        Raises:
            ConfigError: It lacks a key, has another, or its default lies outside.
        """
        where = f"{origin}: {path}"
        for key in (key for key in written if key not in (_DEFAULT, _SEARCH)):
            limit, mend = f"one of: {_DEFAULT}, {_SEARCH}", "remove or rename it"
            raise ConfigError(f"{where}: unknown key {key}", value=written[key], limit=limit, mend=mend)
        if _DEFAULT not in written:
            raise ConfigError(f"{where}: key {_DEFAULT} is missing", mend="add it beside the search")
        default, search = written[_DEFAULT], written[_SEARCH]
        if isinstance(search, Mapping):
            found = Range.parse(search, f"{where}.{_SEARCH}")
            _check_range(default, found, where)
            return cls(default, found)
        if not isinstance(search, Sequence) or isinstance(search, str) or not search:
            limit = "a list of choices, or a range with low and high"
            raise ConfigError(f"{where}.{_SEARCH}", value=search, limit=limit, mend="correct it")
        if default not in search:
            raise ConfigError(
                f"{where}.{_DEFAULT}", value=default, limit=f"one of {list(search)}", mend="add it there"
            )
        return cls(default, tuple(search))

    def bounds(self) -> tuple[Any, ...]:
        """Values that must be valid for all to be: a range's ends, or all choices."""
        if isinstance(self.search, Range):
            return self.decode(self.search.low), self.decode(self.search.high)
        return self.search

    def distribution(self) -> "BaseDistribution":
        """The space as Optuna samples it; choices by their position, for a choice may be a list."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if not isinstance(self.search, Range):
            return CategoricalDistribution(tuple(range(len(self.search))))
        low, high, step, log = self.search.low, self.search.high, self.search.step, self.search.log
        if _is_integer(self.default):
            return IntDistribution(int(low), int(high), log=log, step=int(step or 1))
        return FloatDistribution(low, high, log=log, step=step)

    def encode(self, value: Any) -> Any:
        """A value of the space as the distribution has it."""
        return value if isinstance(self.search, Range) else self.search.index(value)

    def decode(self, sampled: Any) -> Any:
        """The value that the distribution's sample stands for."""
        if not isinstance(self.search, Range):
            return self.search[int(sampled)]
        return int(sampled) if _is_integer(self.default) else float(sampled)

    def plain(self) -> dict[str, Any]:
        """The space as a recipe writes it."""
        search = self.search
        if isinstance(search, Range):
            return {_DEFAULT: self.default, _SEARCH: search.model_dump(mode="json", exclude_defaults=True)}
        return {_DEFAULT: self.default, _SEARCH: list(search)}


def split_spaces(tree: Mapping[str, Any], origin: str) -> tuple[dict[str, Any], dict[str, Space]]:
    """A recipe's tree with every space replaced by its default, and the spaces by their dotted path.

    Raises:
        ConfigError: A space is written wrongly, or where nothing can be searched.
    """
    spaces = dict(_spaces(tree, "", origin))
    return with_values(tree, {path: space.default for path, space in spaces.items()}), spaces


def with_values(tree: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`tree` with the values at some dotted paths replaced."""
    changed = dict(tree)
    for path, value in values.items():
        key, _, rest = path.partition(".")
        changed[key] = with_values(changed.get(key, {}), {rest: value}) if rest else value
    return changed


def _spaces(tree: Mapping[str, Any], prefix: str, origin: str) -> Iterator[tuple[str, Space]]:
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and _SEARCH in value:
            _check_path(path, origin)
            yield path, Space.parse(value, path, origin)
        elif isinstance(value, Mapping):
            yield from _spaces(value, f"{path}.", origin)


def _check_path(path: str, origin: str) -> None:
    if path.partition(".")[0] not in PARTS:
        raise ConfigError(
            f"{origin}: {path} cannot be searched", limit=f"below {' or '.join(PARTS)}", mend="give its value"
        )
    if path.endswith(".fit.epochs"):
        mend = "give its value; tune.max_epochs is how long a trial may run"
        raise ConfigError(f"{origin}: {path} cannot be searched, for it is what trials are cut in", mend=mend)


def _check_range(default: Any, search: Range, where: str) -> None:
    if isinstance(default, bool) or not isinstance(default, int | float):
        limit = f"a list of choices, for the default {default!r} is no number"
        raise ConfigError(
            where, value=search.model_dump(exclude_defaults=True), limit=limit, mend="list them"
        )
    for key, value, limit in _range_faults(default, search):
        raise ConfigError(f"{where}: {key}", value=value, limit=limit, mend="correct it")


def _range_faults(default: float, search: Range) -> Iterator[tuple[str, float, str]]:
    """Key, value and what it must be instead."""
    low, high, step = search.low, search.high, search.step
    for key, value in (("low", low), ("high", high), ("step", step)):
        if value is not None and _is_integer(default) and not value.is_integer():
            yield key, value, f"a whole number, as the default {default} is one"
    if low >= high:
        yield "low", low, f"below the high {high:g}"
    if search.log and low <= 0:
        yield "low", low, "above 0 where log is true"
    if search.log and step:
        yield "step", step, "left out where log is true"
    if not low <= default <= high:
        yield _DEFAULT, default, f"between {low:g} and {high:g}"
    for key, value in ((_DEFAULT, default), ("high", high)):
        if step and abs((value - low) / step - round((value - low) / step)) > _STEP_TOLERANCE:
            yield key, value, f"{low:g} plus a multiple of the step {step:g}"


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
