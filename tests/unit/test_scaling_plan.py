"""The numbers of docs/scaling.md are those of its script, and the script's are right."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import scaling  # noqa: E402
from scaling_plan import GPUS, evaluate  # noqa: E402

PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
TINY = {
    "users": 100, "items": 10, "dim": 4, "history": 5, "features": 3, "batch": 10, "negatives": 2, "column_shards": 2,
    "code_bytes": 2, "lists": 3,
}  # fmt: skip


def test_the_page_quotes_what_the_script_evaluates():
    assert scaling.with_blocks(PAGE, scaling.blocks(evaluate())) == PAGE


def test_a_number_changed_by_hand_is_seen():
    changed = PAGE.replace("516 GB", "517 GB")
    assert changed != PAGE
    assert scaling.with_blocks(changed, scaling.blocks(evaluate())) == PAGE


def test_the_page_lacks_no_block():
    with pytest.raises(ValueError, match=r"docs/scaling.md has no block tables"):
        scaling.with_blocks(PAGE.replace("<!-- tables -->", ""), scaling.blocks(evaluate()))


def test_the_plan_is_for_what_the_page_says_it_is_for():
    found = evaluate()
    assert "1B users, 100M items and 10B events a day" in PAGE
    assert (found["users"], found["items"], found["events_per_day"]) == (1e9, 1e8, 1e10)
    assert GPUS[0] == 8
    assert GPUS[-1] == 128


def test_tables_by_hand():
    found = evaluate(TINY, [2])
    assert found["tables_fp32"] == 110 * (4 * 4 + 4)
    assert found["tables_fp16"] == 110 * (4 * 2 + 4)
    assert found["column_wise_fp16"] == 110 * (4 * 2 + 2 * 4)
    assert found["row_wise_fp32"] == [110 * 20 / 2]
    assert found["ivfpq_index"] == 10 * (2 + 8) + (3 + 256) * 4 * 4


def test_exchange_of_two_ranks_by_hand():
    found = evaluate(TINY, [2])
    ids, bags = 10 * 1 + 10 * 5 + 10 * 1 + 2, 3 * (10 + 2)
    assert found["row_wise_ids"] == [ids * 12 / 2 + bags * 8]  # half the ids, all lengths to the other rank
    assert found["row_wise_vectors"] == [2 * bags * 16]  # both ways, a partial sum of each bag
    assert found["column_wise_ids"] == [
        2 * (ids * 12 + bags * 8) / 2
    ]  # both column shards of a table, half elsewhere
    assert found["column_wise_vectors"] == [2 * bags * 16 / 2]


def test_quantities_of_a_cluster_follow_its_size():
    found = evaluate()
    assert found["row_wise_fp32"] == [567.6e9 / gpus for gpus in GPUS]
    assert found["fits_fp32"] == [False, True, True, True, True]  # 70.95 GB of the 68 that 80 leave
    seconds = found["restore"][0] + 1e10 / found["samples"][0] + found["save"][0] + found["export"][0]
    assert found["cost"][0] == pytest.approx(8 * seconds / 3600 * 2.5)
    assert evaluate({"price_per_gpu_hour": 5.0})["cost"][0] == pytest.approx(2 * found["cost"][0])


def test_an_unknown_assumption_is_refused():
    with pytest.raises(KeyError, match="user_count is no assumption; there are users, items"):
        evaluate({"user_count": 1.0})


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (516e9, "bytes", "516 GB"),
        (999.6e9, "bytes", "1,000 GB"),
        (12, "bytes", "12 B"),
        (0.0119, "seconds", "11.9 ms"),
        (90, "seconds", "1.5 min"),
        (115_740.7, "per second", "116 k"),
        (2.5, "dollars", "$2.50"),
        (2, "", "2"),
        (True, "flag", "yes"),
    ],
)
def test_values_for_people(value, unit, expected):
    assert scaling.shown(value, unit) == expected
