"""Decisions and events as day files keep them."""

from pathlib import Path

import pytest

from tastemaker.errors import DataError
from tastemaker.events.archive import EVENT_SCHEMA, read_days, write_days
from tastemaker.events.log import Entry
from tastemaker.experiments.decision_log import (
    DECISION_SCHEMA,
    Decision,
    decision_table,
    decode_decision,
    encode_decision,
)


def test_a_decision_comes_back_from_the_stream_and_from_parquet(tmp_path: Path) -> None:
    one = Decision(
        decision_id="d", request_id="r", timestamp_ms=5, catalogue="shop", origin="live", unit="ü", user_id="ü",
        bundle="b", experiment="e", variant="a", epoch=3, propensity=0.25, propensities=[0.25, 0.75],
        item_ids=["ü", "x"], scores=[1.5, 0.5], source_masks=[1, 6], slot_propensity=[0.5, 1.0],
        slot_propensity_kind="exact", seed=7, rungs=["cached"], context={"device": "tv"},
        timings_ms={"rank": 1.5}, feature_names=["in_session"], features=[0.0, 1.0],
    )  # fmt: skip
    assert decode_decision(encode_decision(one)) == one
    write_days(tmp_path, decision_table([Entry("9-0", encode_decision(one))]))
    row = read_days(tmp_path, DECISION_SCHEMA, "decision_id").to_pylist()[0]
    assert row.pop("received_ms") == 9
    row["context"], row["timings_ms"] = dict(row["context"]), dict(row["timings_ms"])
    assert Decision(**{name: value for name, value in row.items() if value not in ([], None)}) == one


def test_a_day_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "day=2025-06-15"
    folder.mkdir()
    (folder / "part-1.parquet").write_bytes(b"half written")
    with pytest.raises(DataError, match=r"part-1\.parquet"):
        read_days(tmp_path, EVENT_SCHEMA, "event_id")
