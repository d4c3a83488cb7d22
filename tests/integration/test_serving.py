"""The whole graph on a tiny bundle: real Valkey, MLflow store, Ray, HAProxy and HTTP; started once, stopped whole."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow.compute as pc
import pytest
import scipy.sparse as sp
import torch
from bad_requests import JSON, bodies_of_any_kind, seen
from histories import put_histories
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tastemaker import cli, context
from tastemaker.bundle.manifest import BundleInfo, BundleRef, DatasetInfo
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.client import Client, Event, NotFoundError, Retries
from tastemaker.config import GatewaySettings, Settings
from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.errors import PortInUseError, ServingError, UsageError
from tastemaker.events.archive import read_days
from tastemaker.events.history import read_history
from tastemaker.experiments.decision_log import DECISION_SCHEMA
from tastemaker.experiments.definition import Experiment, ExperimentStore, Fixed, Variant
from tastemaker.features.columns import FeatureSchema, ItemColumns
from tastemaker.features.content import ContentConfig, ContentSpace
from tastemaker.features.records import read_users
from tastemaker.home import Home
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.models.calibration import Calibration
from tastemaker.models.dlrm import Dlrm, DlrmConfig
from tastemaker.models.item_item import fit_ease
from tastemaker.models.popularity import fit_popularity
from tastemaker.models.two_tower import TwoTower, TwoTowerConfig, two_tower_specs
from tastemaker.registry.client import Registry
from tastemaker.stages.content import CONTENT_INDEX
from tastemaker.stages.hydration import feature_names
from tastemaker.stages.loading import write_pipeline
from tastemaker.stages.pipeline import Pipeline, PipelineConfig
from tastemaker.state.connection import connect, open_state, url_of
from tastemaker.state.keys import Keys
from tastemaker.types import Query
from tastemaker_services.app import Serving, start

pytestmark = [
    # Ray and MLflow leave files and sockets to the collector, and use what later releases rename.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
NUM_ITEMS = 60
SOURCES = ("two_tower", "ease", "popular")
YEAR_MS = 31_556_952_000
READ = ("item_click_7d", "session_length", "times_shown")
WAIT_SECONDS = 30.0


def write_bundle(store: BundleStore, catalogue: str, seed: int) -> BundleRef:
    """A pipeline whose ranker is random: each seed orders the items in its own way."""
    generator = np.random.default_rng(0)
    torch.manual_seed(seed)
    items = {
        "item_id": [f"é/{i}" for i in range(NUM_ITEMS)],
        "title": [f"Title {i}" for i in range(NUM_ITEMS)],
        "category": [("Drama", "Comedy", "Noir")[i % 3] for i in range(NUM_ITEMS)],
        "tags": [["Drama"], ["Comedy", "Noir"]] * (NUM_ITEMS // 2),
        "created_at_ms": [i * YEAR_MS for i in range(NUM_ITEMS)],
    }
    import pyarrow as pa

    table = pa.table(items, schema=ITEMS_SCHEMA)
    schema = FeatureSchema.fit(table)
    taken = generator.random((50, NUM_ITEMS)) < np.linspace(0.5, 0.05, NUM_ITEMS)
    item_index = np.nonzero(taken)[1].astype(np.int32)
    two_tower_config = TwoTowerConfig(dim=8)
    two_tower = TwoTower(two_tower_config, two_tower_specs(two_tower_config, schema)).eval()
    sizes = {name: getattr(schema, name) for name in ("num_tags", "num_years", "num_categories")}
    ranker = Dlrm(DlrmConfig(dense_features=feature_names(SOURCES, READ), **sizes))
    torch.nn.init.normal_(ranker.wide.weight)
    with torch.no_grad():  # what is of the moment is read and counts for nothing: answers are those offline
        ranker.wide.weight[:, -len(READ) :] = 0
        ranker.bottom[0].weight[:, -len(READ) :] = 0
    writer = BundleWriter(store, catalogue)
    writer.add_table("items.parquet", table)
    writer.add_json("features.json", schema.model_dump(mode="json"))
    writer.add_towers("two_tower", two_tower, is_item=lambda name: "embedding_bags" in name)
    writer.add_index(
        "index.faiss", FaissIndex.build(two_tower.encode_items(ItemColumns.from_items(table, schema)))
    )
    writer.add_model("ease", fit_ease(sp.csr_matrix(taken, dtype=np.float32), 10.0, half_life=5.0))
    space = ContentSpace.fit(table, ContentConfig(dim=512))
    writer.add_model("content", space)
    writer.add_index(CONTENT_INDEX, FaissIndex.build(space.encode(table)), "content.safetensors")
    writer.add_model("popularity", fit_popularity(item_index, np.arange(len(item_index)), NUM_ITEMS))
    retrieval = {"sources": [{"name": name, "quota": 30} for name in SOURCES], "num_candidates": 40}
    # No luck: served slates are compared with the pipeline's own.
    stages = {"retrieval": retrieval, "hydration": {"request_features": READ}, "exploration": {"share": 0.0}}
    config = PipelineConfig.parse(stages, "test")
    write_pipeline(writer, config, ranker, Calibration(slope=0.7, intercept=-2.0))
    return writer.commit(
        BundleInfo(dataset=DatasetInfo(fingerprint="f" * 64), recipe="test", training_id=f"t{seed}")
    )


@dataclass
class Running:
    serving: Serving
    home: Home
    settings: Settings
    client: httpx.Client
    pipelines: dict[str, Pipeline]
    registry: Registry
    started_seconds: float

    def recommend(self, user_id: str = "nobody", **body: Any) -> dict[str, Any]:
        headers = {"x-tastemaker-origin": body.pop("origin", "live")}
        response = self.client.post("/v1/recommendations", json={"user_id": user_id} | body, headers=headers)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def offline(
        self, bundle: str, history: list[int], k: int = 10, visit: Sequence[int] = (), user: str | None = None
    ) -> list[str]:
        """The bundle's own answer, in this process; the visit is part of the history, `user` is whose record counts."""
        record = None
        if user is not None:
            keys = Keys(self.settings.catalogue, self.settings.state.partitions)
            with connect(url_of(self.settings, self.home)) as client:
                record = read_users(client, keys, [user])[user]
        visit_L = np.array(visit, np.int32)
        query = Query(np.array(history, np.int32), k=k, visit_L=visit_L, record=record, now_ms=now_ms())
        [answer] = self.pipelines[bundle].recommend([query])
        return [f"é/{row}" for row in answer.item_index]


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    others = set(psutil.Process().children(recursive=True))  # of other tests' fixtures
    home = Home.make(tmp_path_factory.mktemp("serving") / "home")
    # A deadline that a busy machine keeps too: fallbacks have tests of their own.
    settings = Settings(
        home=home.root,
        gateway=GatewaySettings(port=0, admin_port=0, deadline_ms=10_000.0, features_share=1.0),
    )
    store = BundleStore.of(settings, home)
    registry = Registry(settings, home)
    pipelines = {}
    for seed, alias in enumerate(("champion", "challenger")):
        ref = write_bundle(store, settings.catalogue, seed)
        version = registry.publish(settings.catalogue, ref, {})
        registry.set_alias(settings.catalogue, alias, version.number, "test", "first release")
        pipelines[ref.bundle_id] = Pipeline.from_bundle(Bundle.open(store, ref))
    with open_state(settings, home) as client:
        keys = Keys(settings.catalogue, settings.state.partitions)
        put_histories(client, keys, {"known": ["é/5", "é/7", "é/9"]})
    before = time.monotonic()
    serving = start(settings, home)
    seconds = time.monotonic() - before
    children = [child for child in psutil.Process().children(recursive=True) if child not in others]
    with httpx.Client(base_url=serving.url, trust_env=False, timeout=20.0) as http:
        yield Running(serving, home, settings, http, pipelines, registry, seconds)
    before = time.monotonic()
    serving.stop()
    serving.stop()  # again: nothing to do
    assert time.monotonic() - before < 30
    assert_gone(children)
    assert not (home / "run" / "serving.json").exists()


def assert_gone(children: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(children, timeout=15)
    assert [process.cmdline() for process in alive] == []


def test_it_is_ready_once_started(running: Running) -> None:
    assert running.client.get("/readyz").json() == {"status": "ready"}
    assert running.client.get("/healthz").status_code == 200
    announced = json.loads((running.home / "run" / "serving.json").read_text())
    assert announced == {
        "pid": os.getpid(),
        "url": running.serving.url,
        "admin_url": running.serving.admin_url,
    }


def test_a_served_slate_is_the_offline_pipelines(running: Running) -> None:
    answer = running.recommend("known", k=10)
    assert answer["degraded"] == []
    assert ids(answer) == running.offline(answer["bundle"], [5, 7, 9])
    assert ids(running.recommend("known", k=10)) == ids(answer)
    session = running.recommend("known", session=["é/11", "nowhere", "é/5"])
    assert ids(session) == running.offline(answer["bundle"], [7, 9, 11, 5], visit=[11, 5])
    assert set(answer["timings_ms"]) == {"history", "retrieve", "rank", "rerank", "total"}


def test_a_list_is_answered_again_until_the_users_next_event(running: Running) -> None:
    event = {
        "event_id": "c1", "user_id": "again", "item_id": "é/30", "kind": "click", "timestamp_ms": now_ms(),
    }  # fmt: skip
    first = running.recommend("again")
    assert first["cached"] is False
    cached = until(lambda: (answer := running.recommend("again"))["cached"] and answer, "the list to be kept")
    assert (cached["items"], cached["cached_from"]) == (first["items"], first["request_id"])
    assert running.recommend("again", origin="simulator")["cached"] is False
    running.client.post("/v1/events", json={"events": [event]})
    fresh = until(
        lambda: (answer := running.recommend("again"))["items"] != first["items"] and answer,
        "the click to count",
    )
    assert ids(fresh) == running.offline(fresh["bundle"], [30], user="again")


def test_what_a_user_hides_is_not_shown_again(running: Running) -> None:
    first = ids(running.recommend("picky", k=5))
    event = {
        "event_id": "h1", "user_id": "picky", "item_id": first[0], "kind": "hide", "timestamp_ms": now_ms(),
    }  # fmt: skip
    running.client.post("/v1/events", json={"events": [event]})
    answer = until(
        lambda: first[0] not in ids(answer := running.recommend("picky", k=5)) and answer, "the refusal"
    )
    assert len(ids(answer)) == 5


def test_an_unknown_user_gets_what_is_popular_at_once(running: Running) -> None:
    answer = running.recommend("first visit", k=5, context={"device": "tv", "mood": "?"})
    assert answer["degraded"] == []
    assert ids(answer) == running.offline(answer["bundle"], [], k=5)
    assert {item["reason"] for item in answer["items"]} == {"popular now"}


def test_hard_rules_hold_end_to_end(running: Running) -> None:
    answer = running.recommend("known", k=50, exclude=["é/0"], filters={"categories": ["Drama"]})
    rows = {int(item_id.removeprefix("é/")) for item_id in ids(answer)}
    assert rows <= set(range(0, NUM_ITEMS, 3)) - {0, 9}
    assert len(rows) == 18


def test_similar_items_come_from_the_index(running: Running) -> None:
    by_query = running.client.get("/v1/items/similar", params={"item_id": "é/4", "k": 3}).json()
    by_path = running.client.get("/v1/items/é%2F4/similar?k=3").json()
    assert ids(by_query) == ids(by_path)
    assert len(ids(by_query)) == 3
    assert "é/4" not in ids(by_query)
    assert by_query["degraded"] == []


def test_errors_reach_the_client_as_problems(running: Running) -> None:
    response = running.client.post("/v1/recommendations", json={"user_id": "u", "colour": "red"})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["field"] == "colour"


def test_no_bad_request_is_a_fault_of_the_graph(running: Running) -> None:
    questions = ["/v1/recommendations", "/v1/items/similar", "/v1/search", "/v1/explain"]

    @given(st.sampled_from(questions), bodies_of_any_kind)
    @hypothesis_settings(max_examples=120, deadline=None)
    def ask(path: str, body: Any) -> None:
        if isinstance(body, dict) and "item_id" in body:
            body = body | {"item_id": "é/3"}
        seen(running.client.post(path, content=json.dumps(body).encode(), headers=JSON))

    ask()
    assert running.client.get("/readyz").status_code == 200


def test_ten_thousand_exclusions_leave_the_rest_and_contradictions_nothing(running: Running) -> None:
    excluded = [f"é/{row}" for row in range(50)] + [f"nowhere/{n}" for n in range(9950)]
    answer = running.recommend("nobody", k=10, exclude=excluded)
    assert (len(excluded), answer["degraded"], answer["notes"]) == (10_000, [], [])
    assert set(ids(answer)) == {f"é/{row}" for row in range(50, 60)}
    noir = {"categories": ["Noir"]}
    nothing = running.recommend("nobody", filters=noir, exclude=[f"é/{row}" for row in range(2, 60, 3)])
    assert (nothing["items"], nothing["notes"]) == ([], ["nothing-fits"])


def test_a_client_cannot_switch_the_gateways_deadline_off(running: Running) -> None:
    headers = {"x-request-timeout-seconds": "0"}
    response = running.client.post("/v1/recommendations", json={"user_id": "u"}, headers=headers)
    assert response.status_code == 200


def test_an_event_becomes_history_and_changes_the_next_answer(running: Running) -> None:
    event = {"event_id": "s1", "user_id": "new", "item_id": "é/20", "kind": "click"}
    event["timestamp_ms"] = int(time.time() * 1000)
    first = running.client.post(
        "/v1/events", json={"events": [event, event | {"event_id": "s2", "kind": "?"}]}
    )
    assert first.status_code == 202
    assert {key: first.json()[key] for key in ("accepted", "duplicate", "rejected")} == {
        "accepted": 1, "duplicate": 0, "rejected": 1,
    }  # fmt: skip
    again = running.client.post("/v1/events", json={"events": [event]}).json()
    assert (again["accepted"], again["duplicate"]) == (0, 1)
    keys = Keys(running.settings.catalogue, running.settings.state.partitions)
    with connect(url_of(running.settings, running.home)) as client:
        until(lambda: read_history(client, keys, "new") == ["é/20"], "the consumer to write the history")
    answer = running.recommend("new")
    assert ids(answer) == running.offline(answer["bundle"], [20], user="new")


def test_events_become_features_of_the_ranker_within_moments_and_the_log_keeps_them(running: Running) -> None:
    fields = {"user_id": "measured", "timestamp_ms": now_ms()}
    events = [fields | {"event_id": "m1", "item_id": "é/20", "kind": "click"}]
    events += [fields | {"event_id": f"m{n}", "item_id": "é/2", "kind": "impression"} for n in (2, 3)]
    assert running.client.post("/v1/events", json={"events": events}).json()["accepted"] == 3
    logged = running.home / "decisions" / running.settings.catalogue

    def features(user: str) -> dict[str, dict[str, float]]:
        """Those of the items of a new answer, by name, as the log has them."""
        request_id = running.recommend(user, k=40, origin="simulator")[
            "request_id"
        ]  # never an earlier answer
        where = pc.field("request_id") == request_id
        until(lambda: len(read_days(logged, DECISION_SCHEMA, "decision_id", where)), "the decision")
        (row,) = read_days(logged, DECISION_SCHEMA, "decision_id", where).to_pylist()
        values = np.reshape(row["features"], (len(row["item_ids"]), -1))
        return {
            item: dict(zip(row["feature_names"], value, strict=True))
            for item, value in zip(row["item_ids"], values, strict=True)
        }

    until(lambda: features("measured")["é/2"]["times_shown"] > 0, "the impressions among the features")
    found = features("measured")
    assert found["é/2"]["times_shown"] == pytest.approx(np.log(3), abs=0.01)
    assert found["é/2"]["session_length"] == pytest.approx(np.log(2))
    assert found["é/3"]["times_shown"] == 0
    until(lambda: features("somebody")["é/20"]["item_click_7d"] > 0, "the click among the item's features")
    assert features("somebody")["é/20"]["session_length"] == 0


def test_an_experiment_splits_visitors_and_each_variant_answers_from_its_bundle(running: Running) -> None:
    keys = Keys(running.settings.catalogue, running.settings.state.partitions)
    with connect(url_of(running.settings, running.home)) as client:
        store = ExperimentStore(client, keys)
        store.create(
            Experiment(
                name="split", hypothesis="they differ", salt="s", origin="simulator",
                variants=(Variant(name="a", alias="champion"), Variant(name="b", alias="challenger")),
                allocation=Fixed(weights=(0.5, 0.5)),
            )
        )  # fmt: skip
        until(lambda: running.recommend(origin="simulator")["experiment"] == "split", "the router's snapshot")
        answers = [running.recommend(f"visitor {i}", origin="simulator", session=["é/3"]) for i in range(40)]
        bundles = {answer["variant"]: answer["bundle"] for answer in answers}
        assert set(bundles) == {"a", "b"}
        assert bundles["a"] != bundles["b"]
        for answer in answers:
            assert ids(answer) == running.offline(bundles[answer["variant"]], [3], visit=[3])
        assert (
            running.recommend("visitor 0")["experiment"] is None
        )  # a live request is none of the simulator's
        listed = httpx.get(f"{running.serving.admin_url}/admin/v1/experiments", trust_env=False).json()
        assert [experiment["name"] for experiment in listed["experiments"]] == ["split"]
        store.stop("split")


def test_a_promotion_flips_the_answers_without_a_failed_request(running: Running) -> None:
    catalogue = running.settings.catalogue
    old = running.recommend("known")
    other = running.registry.version(catalogue, "challenger").number
    running.registry.set_alias(catalogue, "champion", other, "test", "better")

    def flipped() -> bool:
        answer = running.recommend("known")
        assert ids(answer) == running.offline(answer["bundle"], [5, 7, 9])
        return bool(answer["bundle_version"] == other)

    until(flipped, "the promoted version to answer")
    assert running.recommend("known")["bundle"] != old["bundle"]
    running.registry.rollback(catalogue, "champion", "test", "back again")
    until(lambda: running.recommend("known")["bundle"] == old["bundle"], "the rollback")


def put_item(running: Running, item_id: str, **fields: Any) -> None:
    response = running.client.put("/v1/items", json={"items": [{"item_id": item_id} | fields]})
    assert (response.status_code, response.json()["accepted"]) == (200, 1), response.text


def test_a_new_item_is_recommended_at_once_outlives_a_swap_and_goes_when_deleted(running: Running) -> None:
    asked: dict[str, Any] = {"filters": {"tags": ["new/tag"]}}
    assert ids(running.recommend("known", **asked)) == []
    put_item(running, "new/1", tags=["new/tag", "Drama"], category="Drama")
    before = time.monotonic()
    until(lambda: ids(running.recommend("known", **asked)) == ["new/1"], "the new item")
    assert time.monotonic() - before < 60  # the promise; it is about a second
    assert running.recommend("known", **asked)["degraded"] == []
    similar = running.client.get("/v1/items/similar", params={"item_id": "new/1", "k": 3}).json()
    assert (len(similar["items"]), similar["degraded"]) == (3, [])

    catalogue, old = running.settings.catalogue, running.recommend("known")["bundle"]
    other = running.registry.version(catalogue, "challenger").number
    running.registry.set_alias(catalogue, "champion", other, "test", "better")

    def swapped() -> bool:
        answer = running.recommend("nobody", **asked, k=1)
        assert ids(answer) == ["new/1"]
        return bool(answer["bundle"] != old)

    until(swapped, "the swap")
    running.registry.rollback(catalogue, "champion", "test", "back again")
    until(lambda: running.recommend("known")["bundle"] == old, "the rollback")
    assert running.client.delete("/v1/items/new/1").json() == {"deleted": 1}
    until(lambda: ids(running.recommend("known", **asked)) == [], "the deletion")


def test_an_items_country_and_age_are_hard_rules(running: Running) -> None:
    put_item(running, "new/2", tags=["rules"], regions=["DE"], maturity=16)
    asked: dict[str, Any] = {"filters": {"tags": ["rules"]}, "context": {"country": "de"}}
    until(lambda: ids(running.recommend("known", **asked)) == ["new/2"], "the item where it may be shown")
    for less in ({"context": {"country": "FR"}}, {"context": {}}):
        assert ids(running.recommend("known", **asked | less)) == []
    too_young = {"filters": {"tags": ["rules"], "max_maturity": 15}}
    assert ids(running.recommend("known", **asked | too_young)) == []
    assert running.client.delete("/v1/items", params={"item_id": "new/2"}).json() == {"deleted": 1}
    until(lambda: ids(running.recommend("known", **asked)) == [], "the deletion")


def test_metrics_are_the_sum_over_processes_and_the_api_is_documented(running: Running) -> None:
    admin = running.serving.admin_url
    running.recommend("known")

    def metrics() -> dict[str, float]:
        text = httpx.get(f"{admin}/metrics", trust_env=False).text
        rows = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in rows}

    requests = 'tastemaker_gateway_requests_total{catalogue="default",outcome="ok",route="recommendations"}'
    assert metrics()[requests] >= 1
    assert all(name.startswith("tastemaker_") for name in metrics())
    logged = 'tastemaker_gateway_decisions_total{catalogue="default",outcome="logged"}'
    until(lambda: metrics().get(logged, 0) >= 1, "a logged decision")
    assert "/openapi.json" in httpx.get(f"{admin}/docs", trust_env=False).text
    assert "/v1/events" in httpx.get(f"{admin}/openapi.json", trust_env=False).json()["paths"]
    assert running.client.get("/docs").status_code == 404
    assert running.client.get("/metrics").status_code == 404


def test_the_command_line_asks_the_running_gateway(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    before = context.settings()
    context.use(running.settings)
    try:
        returned = cli.invoke(["recommend", "known", "--k", "3", "--session", "é/11", "--json"])
    finally:
        context.use(before)
    answer = json.loads(capsys.readouterr().out)
    assert answer == returned
    assert ids(answer) == running.offline(answer["bundle"], [5, 7, 9, 11], k=3, visit=[11])


def test_why_an_item_is_shown_is_told_as_it_is_answered(running: Running) -> None:
    answer = running.recommend("known", k=5)

    def explain(item_id: str) -> dict[str, Any]:
        asked = {"user_id": "known", "item_id": item_id, "k": 5}
        told: dict[str, Any] = running.client.get("/v1/explain", params=asked).json()
        assert told["degraded"] == []
        return told

    for place, item_id in enumerate(ids(answer), 1):
        told = explain(item_id)
        assert (told["verdict"], told["shown_rank"]) == ("shown", place)
        assert told["features"].keys() >= {"ease_z", *READ}
    taken = explain("é/7")
    assert (taken["verdict"], taken["rules"]) == ("hard-rule", ["already-taken"])
    assert {said["source"] for said in taken["sources"]} == set(SOURCES)
    others = [explain(f"é/{n}")["verdict"] for n in (0, 20, 59)]
    assert set(others) <= {"shown", "behind-k", "below-num-candidates", "not-proposed"}
    assert running.client.get("/v1/explain", params={"user_id": "u", "item_id": "?"}).status_code == 404


def test_a_long_list_is_read_page_by_page(running: Running) -> None:
    answer = running.recommend("known", k=7, paged=True)
    found = ids(answer)
    while answer["next_cursor"]:
        answer = running.recommend("known", k=7, cursor=answer["next_cursor"])
        found += ids(answer)
    assert len(found) == len(set(found)) == NUM_ITEMS - 3


def test_items_are_found_by_words(running: Running) -> None:
    answer = running.client.get("/v1/search", params={"q": "the title 7", "k": 3}).json()
    assert (answer["degraded"], ids(answer)[0], answer["items"][0]["reason"]) == ([], "é/7", "fits the words")
    asked = {"q": "the title 7", "user_id": "known", "filters": {"categories": ["Comedy"]}, "personal": 0.2}
    answer = running.client.post("/v1/search", json=asked).json()
    rows = {int(item_id.removeprefix("é/")) for item_id in ids(answer)}
    assert len(rows) == 10
    assert rows <= set(range(1, NUM_ITEMS, 3)) - {7}  # who took é/7


def test_the_python_client_reads_every_answer(running: Running) -> None:
    with Client(running.serving.url, retries=Retries(timeout_seconds=30, attempt_seconds=20)) as client:
        answer = client.recommend("caller", k=3, context={"device": "tv"}, explain=True)
        assert [item.rank for item in answer.items] == [1, 2, 3]
        assert answer.items[0].ranks
        assert client.explain("caller", answer.items[0].item_id, k=3).item_id == answer.items[0].item_id
        assert len(client.similar("é/3", k=4).items) == 4
        assert client.search("Title 7", k=2).items
        event = Event("caller", "é/3", "like", request_id=answer.request_id, position=0)
        assert client.send_events([event]).accepted == 1
        assert client.send_events([event]).duplicate == 1
        assert client.put_users([{"user_id": "caller", "demographics": {"age": 30}}]).accepted == 1
        kept = until(lambda: (found := client.user("caller")).history and found, "the like")  # type: ignore[attr-defined]
        assert (kept.history, kept.profile["demographics"]["age"]) == (["é/3"], 30)
        assert client.merge_users("guest", "caller").into_user_id == "caller"
        assert client.delete_item("of nobody").deleted == 0
        assert client.put_items([{"item_id": "of a client"}]).accepted == 1
        assert client.delete_item("of a client").deleted == 1

        def is_followed() -> bool:
            try:
                return "deleted" in client.explain("caller", "of a client").rules
            except NotFoundError:
                return False

        until(is_followed, "the gateway to know of the deletion")
        receipt = client.erase_user("caller").receipt
        until(lambda: client.erasure(receipt).state == "done", "the erasure")
        with pytest.raises(NotFoundError, match="caller"):
            client.user("caller")


def test_a_logged_answer_is_replayed_by_the_command(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [
        {"event_id": f"re{n}", "user_id": "replayed", "item_id": f"é/{n}", "kind": "click", "timestamp_ms": now_ms()}
        for n in (3, 9, 30)
    ]  # fmt: skip
    running.client.post("/v1/events", json={"events": events})
    until(lambda: len(running.recommend("replayed", k=50, origin="simulator")["items"]) == 50, "the clicks")
    asked: dict[str, Any] = {"k": 8, "session": ["é/12"], "filters": {"categories": ["Drama", "Noir"]}}

    def replayed() -> dict[str, Any] | None:
        answer = running.recommend("replayed", **asked)
        before = context.settings()
        context.use(running.settings)
        try:
            until(lambda: logged(running, answer["request_id"]), "the archive")
            returned: dict[str, Any] = cli.invoke(["replay", answer["request_id"], "--json"])
        finally:
            context.use(before)
        assert [slot["replayed"] for slot in returned["slots"]] == ids(answer)
        return returned

    report = replayed()
    assert report is not None
    assert json.loads(capsys.readouterr().out)["request_id"] == report["request_id"]
    assert (report["same"], report["notes"]) == (True, [])


def logged(running: Running, request_id: str) -> bool:
    where = pc.field("request_id") == request_id
    folder = running.home / "decisions" / running.settings.catalogue
    return len(read_days(folder, DECISION_SCHEMA, "decision_id", where)) > 0


def test_the_command_line_holds_all_answers_to_a_rung_and_shows_the_ladder(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    before = context.settings()
    context.use(running.settings)
    try:
        cli.invoke(["ladder", "force", "popular", "--for", "10m"])
        asked = time.monotonic()
        answer = until(
            lambda: (answer := running.recommend("known"))["forced"] == "popular" and answer, "the rung"
        )
        assert time.monotonic() - asked < 5  # the promise is a second; the machine may be busy
        assert (answer["degraded"], answer["cached"]) == (["popular"], False)
        shown = cli.invoke(["ladder", "show", "--json"])
        assert shown["forced"]["rung"] == "popular"
        assert set(shown["gateways"]["breakers"].values()) == {"closed"}
        assert shown["gateways"]["rungs_used"]["popular"] >= 1
        cli.invoke(["ladder", "release"])
        until(lambda: running.recommend("known")["degraded"] == [], "the whole graph again")
    finally:
        context.use(before)
    capsys.readouterr()
    by_hand = httpx.get(f"{running.serving.admin_url}/admin/v1/ladder", trust_env=False).json()
    assert by_hand["forced"] is None


def test_our_own_listeners_are_on_loopback(running: Running) -> None:
    ours = {int(url.rsplit(":", 1)[1]) for url in (running.serving.url, running.serving.admin_url)}
    ours.add(json.loads((running.home / "run" / "valkey.json").read_text())["port"])
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [
        connection.laddr
        for process in processes
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert ours <= {address.port for address in listening}
    assert {address.ip for address in listening if address.port in ours} == {"127.0.0.1"}


def test_a_second_start_on_the_same_home_is_refused(running: Running) -> None:
    with pytest.raises(UsageError, match=r"serving of home .* is in use by another process"):
        start(running.settings, running.home)


def test_a_taken_port_is_named(running: Running) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gateway = GatewaySettings(port=port, admin_port=0)
        with pytest.raises(PortInUseError, match=rf"gateway\.port, is {port}, must be a free port"):
            start(running.settings.model_copy(update={"gateway": gateway}), running.home)


def process_of(name: str) -> psutil.Process:
    """The newest of that name: other tests' fixtures have a Valkey of their own."""
    found = [p for p in psutil.Process().children(recursive=True) if name in " ".join(p.cmdline())]
    return max(found, key=lambda process: process.create_time())


@pytest.mark.slow
def test_a_stage_that_dies_is_replaced_by_a_rung_until_it_is_back(running: Running) -> None:
    process_of("ServeReplica:tastemaker:Ranker").kill()
    seen: set[str] = set()

    def recovered() -> bool:
        answer = running.recommend("known", k=5, deadline_ms=500, origin="simulator")  # past the cache
        assert len(ids(answer)) == 5
        seen.update(answer["degraded"])
        return bool(seen) and not answer["degraded"]

    until(recovered, "Serve to start the ranker again")
    assert "retrieval-order" in seen


@pytest.mark.slow
def test_a_hung_state_store_costs_history_not_answers(running: Running) -> None:
    valkey = process_of("valkey-server")
    valkey.suspend()
    try:
        answer = running.recommend("known", k=5, deadline_ms=500)
        assert "no-history" in answer["degraded"]
        assert len(ids(answer)) == 5
        event = {"event_id": "hung", "user_id": "u", "item_id": "é/1", "kind": "click", "timestamp_ms": 1}
        taken = running.client.post("/v1/events", json={"events": [event]})
        assert (taken.status_code, taken.json()["spooled"]) == (202, 1)
    finally:
        valkey.resume()
    until(lambda: running.recommend("known")["degraded"] == [], "histories to be read again")


def test_without_a_champion_nothing_starts_and_nothing_stays(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    before = set(psutil.Process().children(recursive=True))
    home = Home.make(tmp_path_factory.mktemp("empty") / "home")
    settings = Settings(home=home.root, gateway=GatewaySettings(port=0, admin_port=0))
    with pytest.raises(ServingError, match="catalogue default has no champion: publish a version"):
        start(settings, home)
    assert_gone([child for child in psutil.Process().children(recursive=True) if child not in before])
