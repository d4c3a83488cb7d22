"""Makes one set of arrays of the parts of a log: answers by time, their slates, and what came of them.

A part is brought to numbers as soon as it is read, so that of its texts only ids that occur are kept, each once.
Shape letters: R decisions, S places of their slates, E events, U units, V variants.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.errors import ExperimentError
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.reporting.columns import activity, filled, propensities, variants
from tastemaker.experiments.reporting.earned import TAIL, Clicks, Tally, all_tallies, earned
from tastemaker.experiments.reporting.joining import Slates, join
from tastemaker.experiments.reporting.lists import Lists
from tastemaker.experiments.reporting.narrow import Narrow, narrow
from tastemaker.experiments.reporting.parts import Part
from tastemaker.experiments.reporting.past import no_past, past_of, past_of_part
from tastemaker.experiments.reporting.rows import Rows
from tastemaker.experiments.reporting.visits import Visits
from tastemaker.types import Float64, Int32, Int64, Strings

_OF_ROWS: Final = (
    "variant_R", "epoch_R", "shown_ms_R", "lag_ms_R", "degraded_R", "latency_ms_R",
)  # fmt: skip


def assembled(
    parts: Iterable[Part], experiment: Experiment, first_ms: int, *, with_past: bool
) -> dict[str, Any]:
    """The fields of `Observations` that the log says.

    Args:
        parts: Of the log.
        experiment: Whose.
        first_ms: When the first of the decisions was logged.
        with_past: Whether what was before it is wanted.

    Raises:
        ExperimentError: Decisions name variants that the experiment does not have, or lack propensities.
    """
    assembly = _Assembly(experiment, first_ms, with_past)
    for part in parts:
        assembly.add(part)
    return assembly.whole()


class _Assembly:
    """Columns by name, piece by piece; numbers of rows, units, items and names are the piece's own until all are there."""

    def __init__(self, experiment: Experiment, first_ms: int, with_past: bool) -> None:
        self._experiment, self._first_ms, self._with_past = experiment, first_ms, with_past
        self._tallies = all_tallies(experiment.attribution_window_ms)
        self._pieces: dict[str, list[Any]] = defaultdict(list)
        self._earned: dict[Tally, list[Narrow]] = defaultdict(list)
        self._texts: dict[str, list[Any]] = defaultdict(list)
        self._sizes: list[int] = []
        self._num_open = self._unknown_events = 0

    def add(self, part: Part) -> None:
        self._num_open += part.num_open
        answers = part.answers
        if len(answers) == 0:
            return
        self._sizes.append(len(answers))
        for name in ("unit", "device", "country"):
            self._encode(name, answers[name])
        shares_PV, share_R = propensities(answers, self._experiment)
        made_ms_R, shown_ms_R = answers["timestamp_ms"].to_numpy(), answers["received_ms"].to_numpy()
        self._put(
            ids=answers["decision_id"].combine_chunks(),
            made_ms_R=made_ms_R,
            variant_R=narrow(variants(answers, self._experiment)),
            epoch_R=narrow(filled(answers["epoch"], 0)),
            shown_ms_R=shown_ms_R,
            lag_ms_R=narrow(shown_ms_R - made_ms_R),
            shares_PV=shares_PV,
            share_R=share_R,
            degraded_R=narrow(filled(answers["is_degraded"], False)),
            latency_ms_R=narrow(filled(answers["total_ms"], np.nan).astype(np.float64)),
        )
        slates = Slates.of(answers["item_ids"])
        self._texts["item"].append(slates.items)
        self._put(
            item_S=narrow(slates.item_S), length_R=narrow(np.bincount(slates.row_S, minlength=len(answers)))
        )
        self._add_events(part, slates)

    def _add_events(self, part: Part, slates: Slates) -> None:
        events, answers = part.events, part.answers
        before_E = events["received_ms"].to_numpy() < self._first_ms
        joined = join(answers, slates, part.events_to_join(self._first_ms))
        self._unknown_events += joined.num_unknown_requests + joined.num_not_shown
        for tally in self._tallies:
            self._earned[tally].append(earned(slates, joined.touches, len(answers), tally))
        clicks = joined.touches.within(TAIL.events, TAIL.window_of(self._experiment.attribution_window_ms))
        self._put(click_row_E=clicks.row_E, click_item_E=clicks.item_E)
        self._put(visits=self._visits(answers, events.filter(pa.array(~before_E))))
        if self._with_past:
            tables = (events.filter(pa.array(before_E)), part.imported)
            self._put(past=past_of_part(answers, tables, self._texts["unit"][-1], self._first_ms))

    def _visits(self, answers: pa.Table, events: pa.Table) -> Visits:
        """Of the piece's units."""
        unit_R, shown_ms_R = self._pieces["unit"][-1].astype(np.int64), answers["received_ms"].to_numpy()
        row_A, ms_A = activity(answers, events)
        return Visits.of(np.concatenate([unit_R, unit_R[row_A]]), np.concatenate([shown_ms_R, ms_A]))

    def _put(self, **columns: Any) -> None:
        for name, column in columns.items():
            self._pieces[name].append(column)

    def _encode(self, name: str, column: Any) -> None:
        encoded: Any = pc.dictionary_encode(pc.fill_null(column, "").combine_chunks())
        self._texts[name].append(encoded.dictionary)
        self._put(**{name: narrow(encoded.indices.to_numpy())})

    def whole(self) -> dict[str, Any]:
        """All pieces in one, by time and then by id."""
        if not self._sizes:
            raise ExperimentError(
                f"experiment {self._experiment.name} has no decision whose window has closed"
            )
        order_R = self._order()
        place_R = np.empty(len(order_R), np.int32)
        place_R[order_R] = np.arange(len(order_R), dtype=np.int32)
        units, unit_of, unit_R = self._units(order_R)
        lists, item_of = self._lists(place_R)
        rows = self._rows(order_R, unit_R)
        clicks = Clicks(
            narrow(self._numbers_of_rows("click_row_E", place_R)), self._items("click_item_E", item_of)
        )
        past = self._pieces.pop("past", None)
        return {
            "units": units,
            "rows": rows,
            "lists": lists,
            "clicks": clicks,
            "visits": self._all_visits(unit_of),
            "past": no_past(len(units), len(lists.items))
            if past is None
            else past_of(past, unit_of, len(units), lists.items),
            "num_open": self._num_open,
            "unknown_events": self._unknown_events,
        }

    def _rows(self, order_R: Int32, unit_R: Narrow) -> Rows:
        found = {name: self._joined(name)[order_R] for name in _OF_ROWS}
        earned_R = {tally: np.concatenate(self._earned.pop(tally))[order_R] for tally in [*self._earned]}
        for name in ("device", "country"):
            texts, numbers = self._unified(name)
            found |= {f"{name}_R": narrow(np.concatenate(numbers))[order_R], name: _objects(texts)}
        shares_PV, share_R = self._shares()
        return Rows(
            unit_R=unit_R,
            share_R=share_R[order_R],
            list_R=order_R,
            earned=earned_R,
            shares_PV=shares_PV,
            devices=found.pop("device"),
            countries=found.pop("country"),
            **found,
        )

    def _shares(self) -> tuple[Float64, Narrow]:
        """All vectors of propensities, each once, and each decision's."""
        tables, numbers = self._pieces.pop("shares_PV"), self._pieces.pop("share_R")
        shares_PV, place_P = np.unique(np.concatenate(tables), axis=0, return_inverse=True)
        of = np.split(narrow(place_P.ravel()), np.cumsum([len(one) for one in tables])[:-1])
        return shares_PV, np.concatenate([mine[one] for mine, one in zip(of, numbers, strict=True)])

    def _order(self) -> Int32:
        ids: Any = pa.chunked_array(self._pieces.pop("ids"), pa.string())
        at_R = self._joined("made_ms_R")
        if len(self._sizes) == 1:
            return np.arange(self._sizes[0], dtype=np.int32)
        table = pa.table({"at": at_R, "id": ids})
        order: Any = pc.sort_indices(table, [("at", "ascending"), ("id", "ascending")])
        found: Int32 = order.to_numpy().astype(np.int32)
        return found

    def _joined(self, name: str) -> Any:
        return np.concatenate(self._pieces.pop(name))

    def _numbers_of_rows(self, name: str, place_R: Int32) -> Int32:
        """Numbers of rows of the pieces as those of the whole."""
        offsets = np.cumsum([0, *self._sizes])
        pieces = self._pieces.pop(name)
        found: Int32 = np.concatenate(
            [place_R[offset + piece] for offset, piece in zip(offsets[:-1], pieces, strict=True)]
        )
        return found

    def _items(self, name: str, item_of: list[Int32]) -> Narrow:
        """Numbers of items of the pieces as those of the whole."""
        found = []
        for mine in item_of:
            found.append(narrow(mine)[self._pieces[name].pop(0)])
        return np.concatenate(found)

    def _unified(self, name: str) -> tuple[Any, list[Narrow]]:
        """All texts of a kind, each once, and the pieces' numbers as theirs."""
        texts = _each_text(self._texts[name])
        of = [narrow(_numbers(own, texts)) for own in self._texts[name]]
        return texts, [mine[piece] for mine, piece in zip(of, self._pieces.pop(name), strict=True)]

    def _units(self, order_R: Int32) -> tuple[Any, list[Int64], Narrow]:
        """Units in the order in which they came, the number of each piece's, and of each decision's."""
        texts, numbers = self._unified("unit")
        number_R = np.concatenate(numbers)[order_R]
        first, rank = _by_appearance(number_R, len(texts))
        units = texts.take(pa.array(first))
        unit_of = [_numbers(own, units).astype(np.int64) for own in self._texts["unit"]]
        return units, unit_of, narrow(rank)[number_R]

    def _lists(self, place_R: Int32) -> tuple[Lists, list[Int32]]:
        """The lists, piece by piece, their items in the order in which they came, and the number of each piece's."""
        texts = _each_text(self._texts["item"])
        of = [_numbers(own, texts) for own in self._texts["item"]]
        lengths = self._pieces.pop("length_R")
        longest = max((int(length_R.max(initial=0)) for length_R in lengths), default=0) + 1
        first_I = np.full(len(texts), np.iinfo(np.int64).max)
        offset = 0
        for mine, item_S, length_R in zip(of, self._pieces["item_S"], lengths, strict=True):
            row_S = np.repeat(place_R[offset : offset + len(length_R)], length_R).astype(np.int64)
            np.minimum.at(first_I, mine[item_S], row_S * longest + _within(length_R))
            offset += len(length_R)
        order = np.argsort(first_I, kind="stable")
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        item_of = [rank[mine] for mine in of]
        start_L = np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.int64)])
        return Lists(texts.take(pa.array(order)), narrow(start_L), self._items("item_S", item_of)), item_of

    def _all_visits(self, unit_of: list[Int64]) -> Visits:
        pieces = self._pieces.pop("visits")
        return Visits.together(pieces, unit_of)


def _within(length_R: Narrow) -> Int64:
    """Of each place of lists, one behind the other, its place in its list, from 0."""
    lengths = length_R.astype(np.int64)
    return np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _by_appearance(number_N: Narrow, num: int) -> tuple[Int64, Int32]:
    """The numbers that occur, in the order in which they first do, and of each number its place there."""
    occurring, first = np.unique(number_N, return_index=True)
    order = occurring[np.argsort(first, kind="stable")].astype(np.int64)
    rank = np.full(num, -1, np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return order, rank


def _each_text(pieces: list[Any]) -> Any:
    return pc.unique(pa.chunked_array(pieces, pa.string()))


def _numbers(texts: Any, among: Any) -> Int32:
    found: Int32 = pc.index_in(texts, value_set=among).to_numpy().astype(np.int32)
    return found


def _objects(texts: Any) -> Strings:
    found: Strings = texts.to_numpy(zero_copy_only=False).astype(object)
    return found
