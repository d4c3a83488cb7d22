"""What can go wrong, in one tree.

    TastemakerError
    ├── UsageError               exit code 2: the command or its settings are wrong
    │   ├── ConfigError          a key, value or file of the configuration
    │   └── MissingExtraError    an optional dependency is not installed
    ├── DataError                events, catalogue or a table cannot be used
    ├── BundleError
    │   ├── IntegrityError       a file is missing, changed or outside its folder
    │   └── CompatibilityError   parts that do not belong together
    ├── TrainingError
    ├── RegistryError
    │   └── GateRefusedError     a promotion gate said no
    ├── StateError               Redis/Valkey cannot be reached or refuses
    │   └── StreamFullError      events wait for the stream consumer
    ├── ServingError
    │   └── PortInUseError
    └── ExperimentError
        ├── UnknownExperimentError
        └── NothingYetError      too little has happened to say anything

A message says what, value, limit and mend, and the error carries the same as fields.
"""

from typing import ClassVar, Final

MOST_SHOWN: Final = 300
"""Characters of a value in a message; the error itself has all of it."""


class TastemakerError(Exception):
    """A failure that a user can act on.

    Args:
        what: What is wrong, naming the thing ("embedding_dim of the ranker").
        value: The value that was found.
        limit: What would have been right.
        mend: What to do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self, what: str, *, value: object = None, limit: object = None, mend: str | None = None
    ) -> None:
        self.what, self.value, self.limit, self.mend = what, value, limit, mend
        super().__init__(str(self))

    def __str__(self) -> str:
        text = self.what
        if self.value is not None:
            text += f", is {_shown(self.value)}"
        if self.limit is not None:
            text += f", must be {self.limit}"
        return f"{text}: {self.mend}" if self.mend else text

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.value, self.limit, self.mend)


def _shown(value: object) -> str:
    """A value as a message has it: a text in quotes, and of what is long its beginning.

    >>> _shown("tv"), _shown(["tv"]), _shown("x" * 1000)[-20:]
    ("'tv'", "['tv']", '… (1,002 characters)')
    """
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}… ({len(text):,} characters)"


def _rebuild(
    kind: type[TastemakerError], what: str, value: object, limit: object, mend: str | None
) -> TastemakerError:
    return kind(what, value=value, limit=limit, mend=mend)


class UsageError(TastemakerError):
    """The command was misused."""

    exit_code: ClassVar[int] = 2


class ConfigError(UsageError):
    """A key, a value or the file of the configuration is wrong."""


class MissingExtraError(UsageError):
    """An optional dependency is not installed."""


class DataError(TastemakerError):
    """Events, a catalogue or a table cannot be used."""


class BundleError(TastemakerError):
    """A bundle cannot be written or read."""


class IntegrityError(BundleError):
    """A file of a bundle is missing, changed or outside its folder."""


class CompatibilityError(BundleError):
    """Parts that do not belong together, such as a query tower and another training's index."""


class TrainingError(TastemakerError):
    """A training run cannot start or go on."""


class RegistryError(TastemakerError):
    """The registry lacks a version or alias, or cannot be reached."""


class GateRefusedError(RegistryError):
    """A promotion gate refused a version."""


class StateError(TastemakerError):
    """Redis/Valkey cannot be reached or refuses a command."""


class StreamFullError(StateError):
    """A partition's event stream is at its cap: the stream consumer is behind."""


class ServingError(TastemakerError):
    """The serving graph cannot start or answer."""


class PortInUseError(ServingError):
    """A port that we were told to listen on is taken."""


class ExperimentError(TastemakerError):
    """An experiment may not do so beside what runs, or lacks the data for a verdict; one that is ill-defined is a ConfigError."""


class UnknownExperimentError(ExperimentError):
    """No experiment has that name."""


class NothingYetError(ExperimentError):
    """An experiment has no decision, or too few units, to be judged by yet."""
