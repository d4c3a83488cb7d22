"""Columns of a table of answers as numbers, checked.

Shape letters: R decisions, V variants, P different vectors of propensities, A signs of life.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.errors import ExperimentError
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.reporting.narrow import Narrow, narrow
from tastemaker.types import Float64, Int32, Int64


def filled(column: Any, absent: Any) -> Any:
    """A column with a value in place of nulls."""
    values = pc.fill_null(column, absent)
    return values.to_numpy() if isinstance(values, pa.ChunkedArray) else values.to_numpy(zero_copy_only=False)


def variants(decisions: pa.Table, experiment: Experiment) -> Int64:
    """Each decision's variant by its place in the experiment. Shape (R,).

    Raises:
        ExperimentError: One is none of the experiment's.
    """
    place = pc.index_in(decisions["variant"], pa.array(experiment.variant_names))
    if place.null_count:
        strange = pc.unique(decisions["variant"].filter(pc.is_null(place))).to_pylist()
        raise ExperimentError(
            f"decisions of experiment {experiment.name} name variants {strange}",
            limit=f"one of: {', '.join(experiment.variant_names)}",
            mend="give a new experiment a new name",
        )
    return place.to_numpy().astype(np.int64)


def propensities(decisions: pa.Table, experiment: Experiment) -> tuple[Float64, Narrow]:
    """The different vectors of propensities (P, V), and each decision's row among them (R,).

    Raises:
        ExperimentError: A decision lacks them, or says that its own variant could not be drawn.
    """
    lists, num_variants = decisions["propensities"].combine_chunks(), len(experiment.variants)
    lengths = filled(pc.list_value_length(lists), 0)
    if (lengths != num_variants).any():
        raise ExperimentError(
            f"a decision of experiment {experiment.name} lacks its propensities",
            mend="log the assignment's propensities with it",
        )
    propensity_RV = pc.list_flatten(lists).to_numpy().reshape(-1, num_variants).astype(np.float64)
    drawn_R = propensity_RV[np.arange(len(propensity_RV)), variants(decisions, experiment)]
    if not (drawn_R > 0).all():
        raise ExperimentError(
            f"propensity of a variant that experiment {experiment.name} drew",
            value=float(drawn_R.min()),
            limit="above 0",
            mend="log the probabilities that the draw was made with",
        )
    shares_PV, share_R = np.unique(propensity_RV, axis=0, return_inverse=True)
    return shares_PV, narrow(share_R.ravel())


def activity(answers: pa.Table, events: pa.Table) -> tuple[Int32, Int64]:
    """Of the events of the answers' users the row of the user's latest answer before, and their moments by the log's clock."""
    users: Any = pc.dictionary_encode(answers["user_id"].combine_chunks())
    user_R: Int64 = users.indices.to_numpy().astype(np.int64)
    user_E: Int64 = filled(pc.index_in(events["user_id"], value_set=users.dictionary), -1).astype(np.int64)
    shown_ms_R, received_ms_E = answers["received_ms"].to_numpy(), events["received_ms"].to_numpy()
    order = np.lexsort((shown_ms_R, user_R))
    first_ms = int(shown_ms_R.min())
    span = max(int(shown_ms_R.max()), int(received_ms_E.max(initial=0))) - first_ms + 1
    moment_R = (user_R * span + shown_ms_R - first_ms)[order]
    before_E = np.searchsorted(moment_R, user_E * span + received_ms_E - first_ms, side="right") - 1
    row_E = order[np.maximum(before_E, 0)]
    right_E = (user_E >= 0) & (before_E >= 0) & (user_R[row_E] == user_E)
    return row_E[right_E].astype(np.int32), received_ms_E[right_E]
