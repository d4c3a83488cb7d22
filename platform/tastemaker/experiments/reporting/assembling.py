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
from tastemaker.experiments.reporting.joining import Slates, Touches, join
from tastemaker.experiments.reporting.parts import Part
from tastemaker.experiments.reporting.past import no_past, past_of, past_of_part
from tastemaker.types import Float64, Int32, Int64, Strings

_OF_TOUCH: Final = ("row_E", "item_E", "kind_E", "delay_ms_E", "value_E", "received_ms_E")


def assembled(
    parts: Iterable[Part], experiment: Experiment, first_ms: int, *, with_past: bool
) -> dict[str, Any]:
    """The fields of `Observations`, but `now_ms`.

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
        self._pieces: dict[str, list[Any]] = defaultdict(list)
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
        self._put(
            ids=answers["decision_id"].combine_chunks(),
            variant_R=_variants(answers, self._experiment),
            epoch_R=_filled(answers["epoch"], 0),
            timestamp_ms_R=answers["timestamp_ms"].to_numpy(),
            shown_ms_R=answers["received_ms"].to_numpy(),
            propensity_RV=_propensities(answers, self._experiment),
            degraded_R=_filled(answers["is_degraded"], False),
            latency_ms_R=_filled(answers["total_ms"], np.nan).astype(np.float64),
        )
        slates = Slates.of(answers["item_ids"])
        self._texts["item"].append(slates.items)
        self._put(row_S=slates.row_S, item_S=slates.item_S)
        self._add_events(part, slates)

    def _add_events(self, part: Part, slates: Slates) -> None:
        events, answers = part.events, part.answers
        before_E = events["received_ms"].to_numpy() < self._first_ms
        joined = join(answers, slates, part.events_to_join(self._first_ms))
        self._unknown_events += joined.num_unknown_requests + joined.num_not_shown
        self._put(**{name: getattr(joined.touches, name) for name in _OF_TOUCH})
        row_A, ms_A = _activity(answers, events.filter(pa.array(~before_E)))
        self._put(row_A=row_A, ms_A=ms_A)
        if self._with_past:
            tables = (events.filter(pa.array(before_E)), part.imported)
            self._pieces["past"].append(
                past_of_part(answers, tables, self._texts["unit"][-1], self._first_ms)
            )

    def _put(self, **columns: Any) -> None:
        for name, column in columns.items():
            self._pieces[name].append(column)

    def _encode(self, name: str, column: Any) -> None:
        encoded: Any = pc.dictionary_encode(pc.fill_null(column, "").combine_chunks())
        self._texts[name].append(encoded.dictionary)
        self._put(**{name: encoded.indices.to_numpy().astype(np.int32)})

    def whole(self) -> dict[str, Any]:
        """All pieces in one, by time and then by id."""
        if not self._sizes:
            raise ExperimentError(
                f"experiment {self._experiment.name} has no decision whose window has closed"
            )
        order_R = self._order()
        place_R = np.empty(len(order_R), np.int32)
        place_R[order_R] = np.arange(len(order_R), dtype=np.int32)
        of_rows = (
            "variant_R", "epoch_R", "timestamp_ms_R", "shown_ms_R", "propensity_RV", "degraded_R", "latency_ms_R",
        )  # fmt: skip
        found: dict[str, Any] = {name: self._joined(name)[order_R] for name in of_rows}
        for name in ("device", "country"):
            texts, numbers = self._unified(name)
            found[f"{name}_R"] = _objects(texts)[np.concatenate(numbers)[order_R]]
        units, unit_of, unit_R = self._units(order_R)
        slates, item_of = self._slates(place_R)
        activity_A = self._rows("row_A", place_R)
        past = self._pieces.pop("past", None)
        return found | {
            "units": _objects(units),
            "unit_R": unit_R,
            "slates": slates,
            "touches": self._touches(place_R, item_of),
            "activity_unit_A": np.concatenate([unit_R, unit_R[activity_A]]),
            "activity_ms_A": np.concatenate([found["shown_ms_R"], self._joined("ms_A")]),
            "past": no_past(len(units), len(slates.items))
            if past is None
            else past_of(past, unit_of, len(units), slates.items),
            "num_open": self._num_open,
            "unknown_events": self._unknown_events,
        }

    def _order(self) -> Int64:
        ids: Any = pa.chunked_array(self._pieces.pop("ids"), pa.string())
        if len(self._sizes) == 1:
            return np.arange(self._sizes[0])
        at_R: Any = np.concatenate(self._pieces["timestamp_ms_R"])
        table = pa.table({"at": at_R, "id": ids})
        order: Any = pc.sort_indices(table, [("at", "ascending"), ("id", "ascending")])
        found: Int64 = order.to_numpy().astype(np.int64)
        return found

    def _joined(self, name: str) -> Any:
        return np.concatenate(self._pieces.pop(name))

    def _rows(self, name: str, place_R: Int32) -> Int32:
        """Numbers of rows of the pieces as those of the whole."""
        offsets = np.cumsum([0, *self._sizes])
        pieces = self._pieces.pop(name)
        found: Int32 = np.concatenate(
            [place_R[offset + piece] for offset, piece in zip(offsets[:-1], pieces, strict=True)]
        )
        return found

    def _unified(self, name: str) -> tuple[Any, list[Int32]]:
        """All texts of a kind, each once, and the pieces' numbers as theirs."""
        texts = _each_text(self._texts[name])
        of = [_numbers(own, texts) for own in self._texts[name]]
        return texts, [mine[piece] for mine, piece in zip(of, self._pieces.pop(name), strict=True)]

    def _units(self, order_R: Int64) -> tuple[Any, list[Int64], Int64]:
        """Units in the order in which they came, the number of each piece's, and of each decision's."""
        texts, numbers = self._unified("unit")
        first, rank = _by_appearance(np.concatenate(numbers)[order_R], len(texts))
        units = texts.take(pa.array(first))
        return (
            units,
            [_numbers(own, units).astype(np.int64) for own in self._texts["unit"]],
            rank[np.concatenate(numbers)[order_R]].astype(np.int64),
        )

    def _slates(self, place_R: Int32) -> tuple[Slates, list[Int32]]:
        """The slates by row, their items in the order in which they came, and the number of each piece's."""
        texts = _each_text(self._texts["item"])
        of = [_numbers(own, texts) for own in self._texts["item"]]
        row_S = self._rows("row_S", place_R)
        item_S = np.concatenate(
            [mine[piece] for mine, piece in zip(of, self._pieces.pop("item_S"), strict=True)]
        )
        if len(self._sizes) > 1:
            order_S = np.argsort(row_S, kind="stable")
            row_S, item_S = row_S[order_S], item_S[order_S]
        first, rank = _by_appearance(item_S, len(texts))
        return Slates(row_S, rank[item_S], texts.take(pa.array(first))), [rank[mine] for mine in of]

    def _touches(self, place_R: Int32, item_of: list[Int32]) -> Touches:
        row_E = self._rows("row_E", place_R)
        items = self._pieces.pop("item_E")
        item_E = np.concatenate([mine[piece] for mine, piece in zip(item_of, items, strict=True)])
        return Touches(row_E, item_E, *(self._joined(name) for name in _OF_TOUCH[2:]))


def _activity(answers: pa.Table, events: pa.Table) -> tuple[Int32, Int64]:
    """Of the events of the answers' users the row of the user's latest answer before, and their moments by the log's clock."""
    users: Any = pc.dictionary_encode(answers["user_id"].combine_chunks())
    user_R: Int64 = users.indices.to_numpy().astype(np.int64)
    user_E: Int64 = _filled(pc.index_in(events["user_id"], value_set=users.dictionary), -1).astype(np.int64)
    shown_ms_R, received_ms_E = answers["received_ms"].to_numpy(), events["received_ms"].to_numpy()
    order = np.lexsort((shown_ms_R, user_R))
    first_ms = int(shown_ms_R.min())
    span = max(int(shown_ms_R.max()), int(received_ms_E.max(initial=0))) - first_ms + 1
    moment_R = (user_R * span + shown_ms_R - first_ms)[order]
    before_E = np.searchsorted(moment_R, user_E * span + received_ms_E - first_ms, side="right") - 1
    row_E = order[np.maximum(before_E, 0)]
    right_E = (user_E >= 0) & (before_E >= 0) & (user_R[row_E] == user_E)
    return row_E[right_E].astype(np.int32), received_ms_E[right_E]


def _by_appearance(number_N: Int32, num: int) -> tuple[Int64, Int32]:
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


def _filled(column: Any, absent: Any) -> Any:
    values = pc.fill_null(column, absent)
    return values.to_numpy() if isinstance(values, pa.ChunkedArray) else values.to_numpy(zero_copy_only=False)


def _variants(decisions: pa.Table, experiment: Experiment) -> Int64:
    place = pc.index_in(decisions["variant"], pa.array(experiment.variant_names))
    if place.null_count:
        strange = pc.unique(decisions["variant"].filter(pc.is_null(place))).to_pylist()
        raise ExperimentError(
            f"decisions of experiment {experiment.name} name variants {strange}",
            limit=f"one of: {', '.join(experiment.variant_names)}",
            mend="give a new experiment a new name",
        )
    return place.to_numpy().astype(np.int64)


def _propensities(decisions: pa.Table, experiment: Experiment) -> Float64:
    lists, num_variants = decisions["propensities"].combine_chunks(), len(experiment.variants)
    lengths = _filled(pc.list_value_length(lists), 0)
    if (lengths != num_variants).any():
        raise ExperimentError(
            f"a decision of experiment {experiment.name} lacks its propensities",
            mend="log the assignment's propensities with it",
        )
    propensity_RV = pc.list_flatten(lists).to_numpy().reshape(-1, num_variants).astype(np.float64)
    drawn_R = propensity_RV[np.arange(len(propensity_RV)), _variants(decisions, experiment)]
    if not (drawn_R > 0).all():
        raise ExperimentError(
            f"propensity of a variant that experiment {experiment.name} drew",
            value=float(drawn_R.min()),
            limit="above 0",
            mend="log the probabilities that the draw was made with",
        )
    return propensity_RV
