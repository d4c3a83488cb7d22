"""What may not go live, and why."""

import numpy as np
import pyarrow as pa
import pytest

from tastemaker.bundle.manifest import BundleInfo, DatasetInfo
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.config import Settings
from tastemaker.errors import GateRefusedError, RegistryError, UsageError
from tastemaker.home import Home
from tastemaker.index.config import IndexConfig
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.registry.client import Registry
from tastemaker.registry.gates import paired_difference, promote, run_gates

# SQLAlchemy 2.1 warns about a loading strategy that MLflow 3.17 uses.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

USERS = 200
BASE = np.random.default_rng(0).random(USERS)
VECTORS = np.random.default_rng(1).standard_normal((50, 8)).astype(np.float32)


@pytest.fixture
def store(tmp_path):
    return BundleStore(tmp_path / "bundles")


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return Registry(Settings(), Home.make(tmp_path_factory.mktemp("home") / "home"))


def write(store, *, ndcg=BASE, users=None, ids=None, fingerprint="f", weight=1.0, kind="flat"):
    writer = BundleWriter(store, "default")
    writer.add_tensors("item_tower.safetensors", {"w": np.array([weight])})
    writer.add_table("items.parquet", pa.table({"item_id": ids or [f"i{n}" for n in range(50)]}))
    writer.add_index("index.faiss", FaissIndex.build(VECTORS, IndexConfig(kind=kind)))
    if ndcg is not None:
        users = users or [f"u{n}" for n in range(len(ndcg))]
        writer.add_table("user_metrics.parquet", pa.table({"user_id": users, "ndcg@10": ndcg}))
    info = BundleInfo(dataset=DatasetInfo(fingerprint=fingerprint), recipe="demo", training_id="t1")
    return writer.commit(info)


def gates(store, candidate, champion=None):
    opened = [Bundle.open(store, ref) if ref else None for ref in (candidate, champion)]
    return {result.name: result for result in run_gates(*opened)}


def test_a_first_bundle_passes_and_says_what_was_not_looked_at(store):
    results = gates(store, write(store))
    assert {name: r.outcome for name, r in results.items()} == {
        "integrity": "passed", "contents": "passed", "index": "passed", "offline": "not applicable",
    }  # fmt: skip
    assert (results["index"].value, results["index"].limit) == (1.0, 1.0)
    assert results["offline"].reason == "there is no other champion to compare with"


def test_a_bundle_that_is_worse_for_certain_is_refused(store):
    champion = write(store)
    result = gates(store, write(store, ndcg=BASE - 0.1), champion)["offline"]
    assert result.outcome == "refused"
    assert result.value == pytest.approx(-0.1, abs=1e-12)  # float64 means
    assert result.limit == pytest.approx(-0.01 * BASE.mean(), abs=1e-12)
    assert result.reason == "ndcg@10 -0.1000 [-0.1000, -0.1000] over 200 users against the champion"


@pytest.mark.parametrize("loss", [-0.2, 0.0, 0.004])
def test_a_bundle_that_may_be_as_good_passes(store, loss):
    # The tolerated loss is 0.01 * 0.5; the users are paired by id, whatever their order in the table.
    order = np.random.default_rng(2).permutation(USERS)
    ndcg = BASE - loss + np.random.default_rng(3).normal(0, 0.001, USERS)
    candidate = write(store, ndcg=ndcg[order], users=[f"u{n}" for n in order])
    assert gates(store, candidate, write(store))["offline"].outcome == "passed"


def test_a_loss_within_the_noise_passes(store):
    noise = np.tile([-0.5, 0.5], USERS // 2)  # standard error 0.5 / sqrt(200) = 0.035, more than the loss
    result = gates(store, write(store, ndcg=BASE - 0.02 + noise), write(store))["offline"]
    assert result.outcome == "passed"
    assert result.value == pytest.approx(-0.02, abs=1e-12)  # float64 means


@pytest.mark.parametrize(
    ("champion", "reason"),
    [
        ({"fingerprint": "g"}, "the champion was evaluated on other data"),
        ({"ndcg": None}, "fewer than 30 users with ndcg@10 in both"),
        ({"users": [f"v{n}" for n in range(USERS)]}, "fewer than 30 users with ndcg@10 in both"),
    ],
)
def test_a_gate_without_data_says_that_it_does_not_apply(store, champion, reason):
    result = gates(store, write(store, ndcg=BASE - 0.5), write(store, **champion))["offline"]
    assert (result.outcome, result.reason) == ("not applicable", reason)


def test_weights_that_are_not_finite_are_refused(store):
    result = gates(store, write(store, weight=np.nan))["contents"]
    assert (result.outcome, result.value) == ("refused", 1.0)
    assert result.reason == "item_tower.safetensors: w is not finite"


def test_an_item_named_twice_is_refused(store):
    result = gates(store, write(store, ids=["a"] * 50))["contents"]
    assert (result.outcome, result.reason) == ("refused", "items.parquet names an item twice")


def test_an_approximate_index_may_miss_a_tenth(store):
    result = gates(store, write(store, kind="hnsw"))["index"]
    assert (result.outcome, result.limit) == ("passed", 0.9)


def test_the_interval_of_a_paired_difference_covers_the_truth():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(100):
        user = rng.normal(0, 10, 60)
        mean, low, high = paired_difference(user + rng.normal(0.5, 1, 60), user)
        assert low < mean < high
        covered += low <= 0.5 <= high
    assert covered >= 88  # 95 expected; a binomial of 100 falls below 88 once in 500


def publish(registry, store, catalogue, **content):
    return registry.publish(catalogue, write(store, **content), {}).number


def test_promotion_moves_the_alias_and_keeps_what_the_gates_said(registry, store):
    number = publish(registry, store, "passing")
    promote(registry, store, "passing", number, "champion", actor="ann", reason="first")
    assert registry.aliases("passing")["champion"].number == number
    tags = registry._client.get_model_version("passing", str(number)).tags
    assert '"outcome": "passed"' in tags["tastemaker.gate.index"]
    assert '"there is no other champion' in tags["tastemaker.gate.offline"]


def test_a_refused_version_goes_live_only_by_force_with_a_reason(registry, store):
    good, bad = publish(registry, store, "forced"), publish(registry, store, "forced", ndcg=BASE / 2)
    promote(registry, store, "forced", good, "champion", actor="ann", reason="first")
    with pytest.raises(GateRefusedError, match=r"version 2 was refused \(offline: ndcg@10 -.* or force it"):
        promote(registry, store, "forced", bad, "champion", actor="ann", reason="better")
    assert registry.aliases("forced")["champion"].number == good
    with pytest.raises(UsageError, match="a forced promotion needs a reason"):
        promote(registry, store, "forced", bad, "challenger", actor="ann", reason=" ", force=True)
    results = promote(registry, store, "forced", bad, "challenger", actor="ann", reason="planted", force=True)
    assert [r.name for r in results if r.outcome == "refused"] == ["offline"]
    assert [(m.alias, m.version, m.forced) for m in registry.history("forced")] == [
        ("champion", good, False), ("challenger", bad, True),
    ]  # fmt: skip


def test_a_damaged_bundle_is_refused_even_by_force(registry, store, tmp_path):
    number = publish(registry, store, "damaged")
    next(path for path in (tmp_path / "bundles/blobs").rglob("*") if path.is_file()).write_bytes(b"")
    with pytest.raises(GateRefusedError, match=r"integrity: .* was changed .*: publish the bundle again"):
        promote(registry, store, "damaged", number, "champion", actor="ann", reason="must", force=True)
    assert registry.aliases("damaged") == {}


def test_a_lost_champion_does_not_keep_its_successor_out(registry, store, tmp_path):
    old = publish(registry, store, "lost")
    promote(registry, store, "lost", old, "champion", actor="ann", reason="first")
    (tmp_path / "bundles" / registry.version("lost", old).uri).unlink()
    new = publish(registry, store, "lost", ndcg=BASE / 2)
    results = promote(registry, store, "lost", new, "champion", actor="ann", reason="mend")
    assert (results[-1].name, results[-1].outcome) == ("offline", "not applicable")
    assert results[-1].reason.startswith("the champion cannot be read: manifests/default/")


def test_promoting_what_was_not_published_is_refused(registry, store):
    with pytest.raises(RegistryError, match="has no version or alias 5"):
        promote(registry, store, "nothing", 5, "champion", actor="ann", reason="")
