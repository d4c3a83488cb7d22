"""`tastemaker ope --variant`: other stages judged from one variant's answers of a real gateway and pipeline."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from gateway_world import variant
from piped_world import PipedWorld
from tagged import write_bundle

from tastemaker import cli, context
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.errors import ExperimentError, UsageError
from tastemaker.events.archive import event_table, write_days
from tastemaker.events.log import Entry
from tastemaker.events.schema import Event
from tastemaker.experiments.allocation import Thompson
from tastemaker.experiments.decision_log import Decision, decision_table, encode_decision
from tastemaker.experiments.definition import Experiment, Fixed, Variant
from tastemaker.experiments.store import ExperimentStore

NUM_REQUESTS = 160
UNSHUFFLED = {"reranking": {"keep_top": 0}}
SHUFFLED = {"reranking": {"shuffle": {"window": 3, "head": 6}, "keep_top": 0}}
NOTE = (
    "of the lists of variant a of experiment exp, 72 of 160 answers; "
    "what it is compared with is what this variant earned, not all traffic"
)


def begin(state: Any, name: str, allocation: Fixed | Thompson, layer: str = "default") -> None:
    variants = (Variant(name="a", alias="champion"), Variant(name="b", alias="champion"))
    one = Experiment(
        name=name, hypothesis="b is better", salt="s", variants=variants, allocation=allocation, layer=layer
    )
    ExperimentStore(state.client, state.keys).create(one)


@pytest.fixture
def told(state: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments for a log of shuffled lists: a's first item is clicked always, b's never.

    Of 160 answers by turns 80 are b's and 8 of a's were forced for testers.
    """
    monkeypatch.setattr(context, "_settings", state.settings)
    begin(state, "exp", Fixed(weights=(0.5, 0.5)))
    store = BundleStore.of(state.settings, state.home)
    _, manifest = store.get_manifest(write_bundle(store, exploration={"share": 0.0}).uri)
    catalogue = state.settings.catalogue
    world = PipedWorld(Bundle.open(store, store.put_manifest(catalogue, manifest)))
    luck = np.random.default_rng(0)
    monkeypatch.setattr("tastemaker_services.gateway.run.uuid4", lambda: UUID(bytes=luck.bytes(16)))
    for n in range(NUM_REQUESTS):
        world.assignment = replace(variant("champion", SHUFFLED), variant="ab"[n % 2])
        world.recommend(f"user-{n}", session=[f"i{n % 24}"], k=3)
    out = {"assignments": (), "experiment": None, "variant": None, "forced_variants": ("exp=a",)}
    logged = [replace(one, **out) if n % 20 == 0 else one for n, one in enumerate(world.decisions)]
    write_days(state.home / "decisions" / catalogue, decision_table([entry(one) for one in logged]))
    write_days(state.home / "events" / catalogue, event_table([click(one) for one in logged[::2]]))
    file = tmp_path / "policy.yaml"
    file.write_text(json.dumps({"stages": UNSHUFFLED}))
    return ["ope", "--policy", str(file), "--depth", "1", "--least-effective", "10", "--window-minutes", "0"]


def entry(one: Decision) -> Entry:
    return Entry(f"{one.timestamp_ms}-0", encode_decision(one))


def click(one: Decision) -> Entry:
    event = Event(
        event_id=one.request_id, user_id=one.user_id, item_id=one.item_ids[0], kind="click", origin="live",
        timestamp_ms=one.timestamp_ms, request_id=one.request_id,
    )  # fmt: skip
    return Entry(f"{one.timestamp_ms}-0", event.model_dump_json())


def test_stages_are_judged_from_one_variants_lists(told: list[str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    (found,) = cli.invoke([*told, "--variant", "exp/a", "--html", str(page), "--json"])
    assert (found["rows"], found["read"]) == (72, NUM_REQUESTS)
    assert found["left_out"]["were forced for testers"] == 8
    assert found["left_out"]["were of no or another variant than variant a of experiment exp"] == 80
    # The first item of each of a's lists is clicked, whatever it is: what was logged earned 1, and so would any other order.
    assert found["logged"]["value"] == 1.0
    assert found["support"]["largest_weight"] == pytest.approx(3.0)
    values = {one["estimator"]: one["value"]["value"] for one in found["estimates"]}
    assert values["reward interaction, self-normalised"] == pytest.approx(1.0)
    assert found["notes"][0] == NOTE
    assert found["notes"][1].endswith("which answered last of this variant's lists")
    assert NOTE in page.read_text()


def test_all_traffic_is_what_it_is_compared_with_otherwise(told: list[str]) -> None:
    (found,) = cli.invoke([*told, "--json"])
    # 80 of 160 lists earned 1.
    assert (found["rows"], found["logged"]["value"]) == (NUM_REQUESTS, 0.5)
    assert not any("this variant" in note for note in found["notes"])


def test_what_is_no_variant_of_a_split_that_stays_is_refused(told: list[str], state: Any) -> None:
    begin(state, "learns", Thompson(), layer="second")
    with pytest.raises(
        ExperimentError, match="allocation of experiment learns, is 'thompson', must be fixed"
    ):
        cli.invoke([*told, "--variant", "learns/a"])
    with pytest.raises(ExperimentError, match="other"):
        cli.invoke([*told, "--variant", "other/a"])
    for wrong in ("learns", "learns/", "/a"):
        with pytest.raises(UsageError, match=rf"--variant, is '{wrong}', must be EXPERIMENT/VARIANT"):
            cli.invoke([*told, "--variant", wrong])
    with pytest.raises(UsageError, match="leave out --version, --variant, --depth and stages"):
        cli.invoke(["ope", "--experiment", "learns", "--variant", "learns/a"])
    with pytest.raises(UsageError, match="nothing to judge"):
        cli.invoke(["ope", "--variant", "learns/a"])
