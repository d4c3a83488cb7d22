"""The hash of assignment: shipped vectors in Python and JavaScript, layers that know nothing of each other, ranges that never move."""

import itertools
import json
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tastemaker.experiments.assignment import assign_fixed
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.eligibility import Subject
from tastemaker.experiments.hashing import bucket, buckets, pick
from tastemaker.experiments.layers import SLOTS, Ranges, free, has, held_out, overlap, resized, size, slot_of
from tastemaker.experiments.router import takes_part

ROOT = Path(__file__).resolve().parents[2]
VECTORS_FILE = "assignment_vectors.json"
VECTORS: dict[str, Any] = json.loads(
    (resources.files("tastemaker.experiments") / VECTORS_FILE).read_text(encoding="utf-8")
)
NODE = shutil.which("node")
EXPECTED = {
    "buckets": "bucket", "slots": "slot", "fixed": "place", "draws": "place", "traffic": "in", "holdout": "in",
    "whole": "variant",
}  # fmt: skip


def expected() -> dict[str, list[Any]]:
    return {part: [row[field] for row in VECTORS[part]] for part, field in EXPECTED.items()}


def variant(told: dict[str, Any], traffic: float, unit: str) -> str | None:
    """What a running experiment gives a unit, told as the vectors tell it."""
    arms = [arm | {"alias": "champion"} for arm in told["variants"]]
    definition = told | {"hypothesis": "h", "traffic": traffic, "variants": arms}
    one = Experiment.parse(definition, VECTORS_FILE)
    taking_part = takes_part(one, Subject(unit), 0)
    return None if taking_part is None else assign_fixed(one, taking_part).variant


def test_every_shipped_vector_is_met() -> None:
    assert {
        "buckets": [bucket(r["salt"], r["scope"], r["unit"]) for r in VECTORS["buckets"]],
        "slots": [slot_of(r["layer"], r["unit"]) for r in VECTORS["slots"]],
        "fixed": [
            pick(r["weights"], bucket(r["salt"], r["experiment"], r["unit"])) for r in VECTORS["fixed"]
        ],
        "draws": [
            pick(r["propensities"], bucket(r["salt"], f"{r['experiment']}:{r['epoch']}", r["unit"]))
            for r in VECTORS["draws"]
        ],
        "traffic": [has([tuple(s) for s in r["ranges"]], r["wanted"], r["slot"]) for r in VECTORS["traffic"]],  # type: ignore[arg-type]
        "holdout": [held_out(r["salt"], r["share"], r["unit"]) for r in VECTORS["holdout"]],
        "whole": [variant(r["experiment"], r["traffic"], r["unit"]) for r in VECTORS["whole"]],
    } == expected()


def test_the_vectors_begin_as_sha256sum_says() -> None:
    # printf 's1\0checkout\0user-1' | sha256sum -> 7e63e19dd1f58ff0…
    first = VECTORS["buckets"][0]
    assert (first["salt"], first["scope"], first["unit"]) == ("s1", "checkout", "user-1")
    assert first["bucket"] == (0x7E63E19DD1F58FF0 >> 11) / 2**53


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_the_javascript_module_meets_every_vector() -> None:
    module = ROOT / "clients" / "javascript" / "assignment.js"
    vectors = ROOT / "platform" / "tastemaker" / "experiments" / VECTORS_FILE
    told = subprocess.run(
        [str(NODE), str(ROOT / "tests" / "support" / "assignment.mjs"), str(module), str(vectors)],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert json.loads(told.stdout) == expected()


@given(st.lists(st.text(max_size=8).filter(lambda s: s.isprintable()), min_size=1, max_size=5))
def test_many_buckets_at_once_are_those_one_by_one(units: list[str]) -> None:
    assert buckets("s", "x", units).tolist() == [bucket("s", "x", unit) for unit in units]


def test_layers_and_splits_are_independent_over_a_million_users() -> None:
    """Chi-square of slots (in tenths) in two layers and of a split in one of them: each pair of the three is independent."""
    units = [f"user-{n}" for n in range(1_000_000)]
    tenth_a = (buckets("", "layer:default", units) * 10).astype(int)
    tenth_b = (buckets("", "layer:search", units) * 10).astype(int)
    variant = (buckets("s1", "checkout", units) * 2).astype(int)
    for one, other, ways in (
        (tenth_a, tenth_b, (10, 10)),
        (tenth_a, variant, (10, 2)),
        (tenth_b, variant, (10, 2)),
    ):
        table = np.bincount(one * ways[1] + other, minlength=ways[0] * ways[1]).reshape(ways)
        assert stats.chi2_contingency(table).pvalue > 1e-3  # fixed data: it passes or fails for ever
        assert stats.chisquare(table.sum(axis=1)).pvalue > 1e-3  # and each is uniform


Span = st.integers(0, SLOTS)


@st.composite
def disjoint(draw: st.DrawFn) -> list[Ranges]:
    """Ranges of some experiments, which share no slot, in any order."""
    edges = sorted(draw(st.sets(Span, min_size=2, max_size=12)))
    spans = list(draw(st.permutations(list(itertools.pairwise(edges)))))
    spans = spans[: draw(st.integers(1, len(spans)))]
    cuts = sorted(draw(st.sets(st.integers(0, len(spans)), max_size=3)) | {0, len(spans)})
    return [tuple(spans[a:b]) for a, b in itertools.pairwise(cuts)]


@given(disjoint(), st.integers(1, SLOTS))
def test_resized_ranges_keep_their_first_slots_and_take_nobody_elses(held: list[Ranges], wanted: int) -> None:
    own, others = held[0], held[1:]
    left = SLOTS - sum(size(other) for other in others)
    found = resized(own, wanted, others)
    if wanted > left:
        assert found is None
        return
    assert found is not None
    assert size(found) == wanted
    assert all(overlap(found, other) == 0 for other in others)
    kept = min(wanted, size(own))
    probes = {slot for first, end in (*own, *found) for slot in (first, end - 1)}
    assert all(has(found, kept, slot) == has(own, kept, slot) for slot in probes)


@given(disjoint())
def test_what_is_free_and_what_is_taken_make_the_layer(held: list[Ranges]) -> None:
    empty = free(held)
    assert size(empty) + sum(size(ranges) for ranges in held) == SLOTS
    assert all(overlap(empty, ranges) == 0 for ranges in held)


@given(Span, Span, st.integers(0, SLOTS - 1))
def test_more_traffic_never_puts_a_slot_out(fewer: int, more: int, slot: int) -> None:
    fewer, more = sorted((fewer, more))
    ranges = ((7000, 10_000), (0, 7000))
    assert has(ranges, fewer, slot) <= has(ranges, more, slot)


def test_a_larger_holdout_has_all_of_a_smaller_one() -> None:
    users = [f"u{n}" for n in range(5000)]
    few = {user for user in users if held_out("h", 0.02, user)}
    many = {user for user in users if held_out("h", 0.1, user)}
    assert few < many
    assert len(many) == pytest.approx(500, abs=85)  # four standard deviations
    assert many != {user for user in users if held_out("other", 0.1, user)}
