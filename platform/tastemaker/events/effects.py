"""What applying the log leads to beside the log's own: rewards, and the state of users and items.

Both are made in parts that events may not import, and given to the consumer.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import pyarrow as pa

from tastemaker.events.attribution import Ignored, Outcome, Rules
from tastemaker.events.log import Entry
from tastemaker.events.owners import Owners
from tastemaker.events.schema import Event
from tastemaker.state.lease import Command


class Rewards(Protocol):
    """Who wants the rewards: `experiments.posterior.RewardJoiner`."""

    def rules(self) -> Rules:
        """What a reward is, for the experiments whose rewards count."""

    def commands(self, partition: int, outcomes: Sequence[Outcome]) -> list[Command]:
        """What final outcomes write to their partition."""

    def roll_up(self, experiments: Iterable[str] | None) -> None:
        """Brings catalogue-wide totals up to date; of all experiments for None."""

    def count(self, outcomes: Iterable[Outcome], ignored: Mapping[Ignored, int]) -> None:
        """Counts outcomes in the metrics, and by reason the events that were no reward."""

    def decision_table(self, decisions: Sequence[Entry]) -> pa.Table:
        """Decisions as the table to archive."""


class Applied(NamedTuple):
    """What events write to their partition, and why some of them, by place, could not be applied."""

    commands: list[Command]
    refused: Mapping[int, str]


class Effects(Protocol):
    """Who keeps state of users and items: `features.stream.StreamFeatures`."""

    def apply(
        self, events: Mapping[int, Sequence[Event]], owners: Mapping[int, Owners]
    ) -> dict[int, Applied]:
        """What live events write, by partition. It reads state; the commit writes it, or the step starts anew.

        `owners` says by partition whom events count for, where that is special.
        """

    def join(self, partitions: Iterable[int], history_length: int) -> dict[int, list[Command]]:
        """What merges of users and opting out write to held partitions, a bounded amount, for a commit of each."""

    def forward(self, partitions: Iterable[int]) -> int:
        """Brings on what such commits have sent to other partitions; gives how much."""

    def project(self) -> int:
        """Brings catalogue-wide state up to date, a bounded amount; gives how much was."""

    def close(self) -> None:
        """Gives up what it holds."""
