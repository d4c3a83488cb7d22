"""The hourly and the nightly command on a small catalogue. Real Ray, TorchRec, MLflow and Parquet days."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from small import NUM_USERS, SmallHome, movielens_folder

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.data.item_rows import Item
from tastemaker.data.log import read_log
from tastemaker.errors import GateRefusedError, UsageError
from tastemaker.events.archive import encode_part, event_table, new_name, write_days, write_part
from tastemaker.events.log import Entry
from tastemaker.events.receipts import read_receipt
from tastemaker.home import Home
from tastemaker.models.two_tower import QueryEncoder
from tastemaker.registry.client import Registry
from tastemaker.stages.pipeline import Pipeline
from tastemaker.state.connection import open_keys, open_state
from tastemaker.state.items import write_items
from tastemaker.state.lists import StoredList
from tastemaker.types import Query
from tastemaker.users.archive import PROFILE_SCHEMA, profiles_folder
from tastemaker_training.jobs.schedules import Order, Retrained, retrain
from tastemaker_training.plan.recipe import read_recipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]
EVENTS_A_USER = 16
NOW_MS = 1_700_000_000_000

RECIPE = """
extends: movielens
memory: {item_knn: {num_neighbours: 20}, ease: {l2: 20.0, keep: 30}, als: {dim: 8, iterations: 3}, half_lives: [2.0]}
two_tower: {model: {dim: 16, hidden: 16, max_history: 10}, fit: {epochs: 2, batch_size: 64}}
ranker: {fit: {epochs: 1, requests_per_batch: 8}}
"""


def archive_views_of_new_films(home: Home) -> None:
    """Every user views two of eighty films that nobody knew; a simulated one views one more."""
    views = [(f"{user}", f"new-{(2 * user + n) % NUM_USERS}") for user in range(NUM_USERS) for n in (0, 1)]
    events = [
        {"event_id": f"e{n}", "user_id": user, "item_id": item, "kind": "view", "origin": "live"}
        for n, (user, item) in enumerate(views)
    ]
    events.append(events[0] | {"event_id": "s", "item_id": "simulated", "origin": "simulator"})
    entries = [
        Entry(f"{n}-0", json.dumps(event | {"timestamp_ms": 1_000_100_000_000 + n * 3_600_000}))
        for n, event in enumerate(events)
    ]
    write_days(home / "events" / "default", event_table(entries))


class Deployment(SmallHome):
    """A home in which the nightly command has made the first champion, and the hourly one its users' vectors."""

    recipe = RECIPE

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.opened, self.settings = Home.open(self.home), Settings(home=self.home)
        self.first = self.json("retrain", "small.yaml", "--to", "champion", "--json")
        self.refreshed = self.json("refresh-users", "--json")

    def fails(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code and both outputs of a command."""
        process = self.start(*arguments)
        out, error = process.communicate(timeout=300)
        return process.returncode, out, error

    def retrain(self, **order: Any) -> Retrained:
        """In this process: for what ends before a training."""
        return retrain(
            self.settings, self.opened, Order(read_recipe(str(self.folder / "small.yaml")), **order)
        )

    @property
    def registry(self) -> Registry:
        return Registry(self.settings, self.opened)

    def live(self) -> dict[str, int]:
        return {alias: version.number for alias, version in self.registry.aliases("default").items()}

    def bundle(self, alias: str) -> Bundle:
        return Bundle.open(
            BundleStore.of(self.settings, self.opened), self.registry.version("default", alias).ref
        )


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return Deployment(tmp_path_factory.mktemp("schedules"))


def outcomes(steps: list[Any]) -> list[tuple[str, str]]:
    return [(step["name"], step["outcome"]) for step in steps]


def test_the_first_retrain_trains_publishes_and_promotes(deployment: Deployment) -> None:
    assert deployment.first["outcome"] == "promoted"
    assert outcomes(deployment.first["steps"]) == [
        ("log", "done"), ("data gate", "not applicable"), ("training", "done"), ("publishing", "done"),
        ("promotion", "done"),
    ]  # fmt: skip
    assert deployment.live()["champion"] == deployment.first["published"]["version"] == 1
    profile = deployment.bundle("champion").json("data_profile.json")
    assert (profile["num_rows"], profile["users"]["num_ids"]) == (EVENTS_A_USER * NUM_USERS, NUM_USERS)


def test_the_same_log_and_recipe_are_not_trained_again(deployment: Deployment) -> None:
    done = deployment.retrain()
    assert done.outcome == "nothing new"
    assert done.steps[-1].detail == "champion, version 1, is of this log and recipe"
    assert deployment.live() == {"champion": 1}


def test_users_vectors_are_what_the_champions_tower_gives(deployment: Deployment) -> None:
    found = deployment.refreshed
    assert (found["outcome"], found["num_users"], found["num_skipped"]) == ("written", NUM_USERS, 0)
    table = pq.read_table(found["file"])
    assert table.num_rows == NUM_USERS
    bundle, dataset = deployment.bundle("champion"), read_log(deployment.opened, "default")
    encoder = bundle.towers("two_tower", QueryEncoder)
    for row in (table.slice(0, 1), table.slice(NUM_USERS - 1, 1)):
        user = dataset.user_ids.index(row["user_id"][0].as_py())
        items = dataset.item_index[dataset.user_index == user]
        history = np.array([bundle.index_of(dataset.item_ids[item]) for item in items], np.int32)
        assert (row["history_length"][0].as_py(), row["newest_ms"][0].as_py()) == (
            EVENTS_A_USER, 1_000_000_000_000 + (EVENTS_A_USER - 1) * 60_000,
        )  # fmt: skip
        np.testing.assert_allclose(
            row["vector"][0].as_py(), encoder.encode([history])[0], rtol=0, atol=1e-6
        )  # float32 sums in another order


def test_vectors_of_the_same_log_are_not_computed_again(deployment: Deployment) -> None:
    file = Path(deployment.refreshed["file"])
    before = file.stat().st_mtime_ns
    again = deployment.json("refresh-users", "--json")
    assert again["outcome"] == "up to date"
    assert file.stat().st_mtime_ns == before


def test_an_audience_is_nearest_by_the_vectors_and_has_not_had_the_item(deployment: Deployment) -> None:
    found = deployment.json("audience", "8", "--k", "10", "--json")
    bundle, dataset = deployment.bundle("champion"), read_log(deployment.opened, "default")
    table = pq.read_table(deployment.refreshed["file"])
    item = bundle.index().vectors()[bundle.index_of("8")]
    score = dict(zip(table["user_id"].to_pylist(), np.array(table["vector"].to_pylist()) @ item, strict=True))
    had = dataset.user_index[dataset.item_index == dataset.item_ids.index("8")]
    for user in {dataset.user_ids[row] for row in had}:
        del score[user]
    assert len(had) > 0
    assert [member["user_id"] for member in found] == sorted(score, key=lambda user: -score[user])[:10]
    code, _, error = deployment.fails("audience", "no-such")
    assert code == 2
    assert "train on it first" in error


def test_everybody_gets_a_list_by_the_champions_pipeline(deployment: Deployment) -> None:
    done = deployment.json("batch", "--k", "5", "--keep-hours", "2", "--json")
    assert (done["outcome"], done["num_users"], done["num_skipped"]) == ("written", NUM_USERS, 0)
    bundle, dataset = deployment.bundle("champion"), read_log(deployment.opened, "default")
    user = dataset.user_ids.index("7")
    items = dataset.item_index[dataset.user_index == user]
    history = np.array([bundle.index_of(dataset.item_ids[item]) for item in items], np.int32)
    (best,) = Pipeline.from_bundle(bundle).recommend([Query(history, k=5)])
    expected = [bundle.item_ids[row] for row in best.item_index]
    rows = pq.read_table(done["file"]).to_pylist()
    assert next(row["item_ids"] for row in rows if row["user_id"] == "7") == expected
    with open_state(deployment.settings, deployment.opened) as client:
        keys = open_keys(client, deployment.settings)
        stored = StoredList.decode(client.get(keys.stored_list("7")))
        seconds = client.ttl(keys.stored_list("7"))
    assert stored is not None
    assert (stored.bundle_id, stored.item_ids) == (bundle.bundle_id, expected)
    assert 0 < seconds <= 7200


def test_lists_of_the_same_log_are_kept_longer_and_not_computed_again(deployment: Deployment) -> None:
    assert deployment.json("batch", "--k", "5", "--json")["outcome"] == "up to date"
    with open_state(deployment.settings, deployment.opened) as client:
        assert client.ttl(open_keys(client, deployment.settings).stored_list("7")) > 7200
    code, _, error = deployment.fails("batch", "--k", "0")
    assert code == 2
    assert "1 to 200" in error


def test_put_items_are_in_the_lists_and_deleted_ones_are_not(deployment: Deployment) -> None:
    first = pq.read_table(deployment.json("batch", "--k", "5", "--json")["file"])
    gone = pc.list_flatten(first["item_ids"]).value_counts().to_pylist()
    gone = max(gone, key=lambda count: count["counts"])["values"]
    with open_state(deployment.settings, deployment.opened) as client:
        keys = open_keys(client, deployment.settings)
        rows = {f"new-{n}": Item(item_id=f"new-{n}", title="Toy Story").encode() for n in range(20)}
        write_items(client, keys, rows | {gone: None})
    done = deployment.json("batch", "--k", "5", "--json")
    assert done["outcome"] == "written"
    listed = set(pc.list_flatten(pq.read_table(done["file"])["item_ids"]).to_pylist())
    assert gone not in listed
    assert listed & set(rows)
    assert deployment.json("batch", "--k", "5", "--json")["outcome"] == "up to date"
    with open_state(deployment.settings, deployment.opened) as client:  # as it was, for the tests behind
        keys = open_keys(client, deployment.settings)
        client.delete(keys.put_items, keys.put_order, keys.put_changes, keys.put_head)


def test_who_opted_out_is_in_no_list(deployment: Deployment) -> None:
    row = {"user_id": "7", "updated_ms": 1, "version": 1, "personalise": "false"}
    file = profiles_folder(deployment.opened, "default") / new_name()
    write_part(file, encode_part(pa.Table.from_pylist([row], schema=PROFILE_SCHEMA)))
    done = deployment.json("batch", "--k", "5", "--json")
    assert done["outcome"] == "written"
    assert "7" not in pq.read_table(done["file"])["user_id"].to_pylist()
    file.unlink()
    assert deployment.json("batch", "--k", "5", "--json")["outcome"] == "written"


def test_two_at_once_are_kept_apart(deployment: Deployment) -> None:
    with (
        deployment.opened.lock("retrain"),
        pytest.raises(UsageError, match=r"retrain of home .* is in use by another process"),
    ):
        deployment.retrain()
    with deployment.opened.lock("refresh-users"):
        code, _, error = deployment.fails("refresh-users")
    assert code == 2
    assert "refresh-users of home" in error


def test_force_without_a_reason_is_refused(deployment: Deployment) -> None:
    with pytest.raises(UsageError, match="a forced retrain needs a reason"):
        deployment.retrain(force=True)


def test_a_log_that_lost_its_rows_is_refused_with_the_figures_and_nothing_moves(
    deployment: Deployment,
) -> None:
    deployment.run("data", "import", str(movielens_folder(deployment.folder / "few", NUM_USERS // 10)))
    try:
        code, out, error = deployment.fails("retrain", "small.yaml", "--json")
    finally:
        deployment.run("data", "import", str(deployment.folder / "ml"))
    assert code == 1
    found = json.loads(out)
    assert outcomes(found["steps"]) == [("log", "done"), ("data gate", "refused")]
    rows = next(check for check in found["data_gate"] if check["name"] == "rows")
    assert (rows["value"], rows["limit"], rows["passed"]) == (0.1, 0.5, False)
    assert "the data gate refused the log (rows 0.1, must be within 0.5; users 0.1" in error
    assert deployment.live() == {"champion": 1}
    assert len(deployment.registry.versions("default")) == 1


def test_a_forced_retrain_learns_from_the_live_events_and_says_why(deployment: Deployment) -> None:
    archive_views_of_new_films(deployment.opened)
    refused = deployment.retrain()
    assert isinstance(refused.refusal, GateRefusedError)
    assert {"new_items", "psi_kinds"} <= {check.name for check in refused.checks if not check.passed}
    forced = deployment.json("retrain", "small.yaml", "--force", "--reason", "the new shelf", "--json")
    assert ("data gate", "forced") in outcomes(forced["steps"])
    training = next(step for step in forced["steps"] if step["name"] == "training")
    assert training["detail"].endswith(f"from training {deployment.bundle('champion').manifest.training_id}")
    assert deployment.live() == {"champion": 1, "challenger": 2}
    challenger = deployment.bundle("challenger")
    assert challenger.manifest.dataset.fingerprint == read_log(deployment.opened, "default").fingerprint
    assert challenger.index_of("new-7") is not None
    assert challenger.index_of("simulated") is None
    move = deployment.registry.history("default")[-1]
    assert (move.actor, move.reason) == (
        "tastemaker retrain", "retrain of small; data gate forced: the new shelf",
    )  # fmt: skip
    assert deployment.retrain().outcome == "nothing new"


def test_an_erased_user_is_in_no_file_and_the_receipt_names_what_learned_of_them(
    deployment: Deployment,
) -> None:
    (receipt,) = deployment.json("erase", "7", "--json")
    removed = receipt["removed"]
    assert (removed["imported rows"], removed["archived events"], removed["lists"]) == (EVENTS_A_USER, 2, 1)
    assert removed["computed rows"] == 2  # a vector and a list
    assert receipt["bundles"] == [1, 2]
    assert "7" not in read_log(deployment.opened, "default").user_ids
    texts = [
        path for path in deployment.home.rglob("*.parquet")
        if "user_id" in pq.read_schema(path).names
        and "7" in pq.read_table(path, columns=["user_id"])["user_id"].to_pylist()
    ]  # fmt: skip
    assert texts == []
    assert read_receipt(deployment.opened, "default", receipt["receipt"]) is not None
    assert deployment.json("erase", "7", "--json")[0]["removed"]["imported rows"] == 0
