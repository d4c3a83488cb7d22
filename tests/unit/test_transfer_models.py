"""Models that learn from another domain: that they help where it tells something, and are dropped where not; their parts."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import CompatibilityError, ConfigError, DataError
from tastemaker.models import zoo
from tastemaker.models.log import NOBODY, Askers, Filters, Log
from tastemaker.models.transfer.domains import Domains
from tastemaker.models.transfer.emcdr import EmcdrConfig
from tastemaker.models.transfer.fine_tuned import FineTuned, FineTunedConfig, l2_sp, target_tables, unfreezing
from tastemaker.models.transfer.shared_tower import SharedTowerConfig, alone
from tastemaker.models.transfer.tower import START, Tower, input_of, items_of, start, users
from tastemaker.models.transfer.training import Histories, as_arrays, as_weights, train
from tastemaker.testing.domain_worlds import TwoDomains

FACTORS = {"dim": 8, "iterations": 8}
TOWER = {"dim": 16, "epochs": 20, "learning_rate": 0.01, "batch_size": 64}
SETTINGS = {
    "emcdr": {"source": FACTORS, "target": FACTORS},
    "shared-tower": TOWER,
    "fine-tuned": TOWER | {"source_epochs": 10, "l2_sp": 0.001},
}
KEPT = {"kept": ["cold", "few", "many"]}


def rows(*items: int) -> np.ndarray:
    return np.array(items, np.int32)


@pytest.fixture(scope="module")
def related() -> TwoDomains:
    return TwoDomains.of(0, related=True)


@pytest.fixture(scope="module")
def fitted(related):
    """All kinds with the transfer for everybody."""
    laid = {"domains": related.domains.model_dump(mode="json"), "decided": KEPT}
    return {kind: zoo.fit(kind, related.log, laid | settings) for kind, settings in SETTINGS.items()}


@pytest.mark.parametrize("kind", SETTINGS)
def test_where_domains_are_related_the_cold_get_nearly_the_best_lists(kind, related):
    laid = {"domains": related.domains.model_dump(mode="json")}
    model = zoo.fit(kind, related.log, laid | SETTINGS[kind])
    assert "cold" in model.config.decided.kept
    best = related.best_hit_rate(6)
    assert related.hit_rate(model, 6) > 0.75 * best
    popular = zoo.fit(kind, related.log, laid | {"decided": {"kept": []}} | SETTINGS[kind])
    assert related.hit_rate(popular, 6) < 0.5 * best
    assert not any(name.startswith("moved") for name in popular.tensors())


@pytest.mark.parametrize("kind", SETTINGS)
def test_where_they_are_not_the_transfer_is_dropped_and_the_model_says_so(kind):
    world = TwoDomains.of(1, related=False)
    model = zoo.fit(kind, world.log, {"domains": world.domains.model_dump(mode="json")} | SETTINGS[kind])
    decided = model.config_dict()["decided"]
    assert decided["kept"] == []
    assert all(group["finding"] != "helps" for group in decided["groups"] if "," not in group["group"])
    again = model.refit_config()
    refitted = type(model).fit(world.log, again)
    assert refitted.config.decided == model.config.decided, "decided anew"
    assert not any(name.startswith("moved") for name in refitted.tensors())


@given(data=st.data())
@pytest.mark.parametrize("kind", SETTINGS)
def test_whoever_asks_gets_all_of_the_target_before_anything_else(kind, fitted, related, data):
    model, first = fitted[kind], related.log.num_items // 2
    history = data.draw(st.lists(st.integers(-1, related.log.num_items), max_size=12))
    item_BK, _ = model.recommend(
        Askers.strangers([rows(*history)]), related.log.num_items, Filters(exclude_seen=False)
    )
    assert (item_BK[0, :first] >= first).all()


@pytest.mark.parametrize("kind", SETTINGS)
def test_asked_for_the_source_alone_it_ranks_that_too(kind, fitted, related):
    num_source = related.log.num_items // 2
    allowed_I = np.arange(related.log.num_items) < num_source
    user = int(np.flatnonzero(related.group_U == 2)[0])
    known = Askers.known(related.log, rows(user))
    item_BK, _ = fitted[kind].recommend(known, 5, Filters(exclude_seen=False, allowed_I=allowed_I))
    assert (item_BK[0] < num_source).all()
    assert ((item_BK[0] // related.items_each) == 2).mean() >= 0.8  # the user's own group


@pytest.mark.parametrize("kind", SETTINGS)
def test_groups_are_answered_by_the_part_that_was_decided_for_them(kind, fitted, related):
    laid = {"domains": related.domains.model_dump(mode="json"), "monitor": {"few": 2}}
    mixed = zoo.fit(kind, related.log, laid | {"decided": {"kept": ["few"]}} | SETTINGS[kind])
    alone_ = zoo.fit(kind, related.log, laid | {"decided": {"kept": []}} | SETTINGS[kind])
    target = related.log.num_items // 2 + np.arange(5, dtype=np.int32)
    askers = Askers.strangers([rows(0, 1), rows(0, *target[:2]), rows(0, *target[:3])])
    lists = [model.recommend(askers, 10)[0].tolist() for model in (fitted[kind], alone_, mixed)]
    assert lists[2] == [lists[1][0], lists[0][1], lists[1][2]]
    assert lists[0] != lists[1]


def test_a_model_that_lacks_a_part_is_refused(fitted):
    model = fitted["shared-tower"]
    tensors = dict(model.tensors())
    tensors["moved.input"] = tensors["moved.input"][:, :3]
    with pytest.raises(CompatibilityError, match="input table of a transfer's tower"):
        type(model).from_state(model.config_dict(), tensors)
    with pytest.raises(CompatibilityError, match="does not say for whom"):
        type(model).from_state(model.config_dict() | {"decided": None}, model.tensors())


def test_users_with_nothing_in_common_give_no_map():
    log = Log.of(rows(0, 0, 1, 1), rows(0, 1, 2, 3), num_users=2, num_items=4)
    settings = {"domains": {"by": "rows", "sizes": {"source": 2, "target": 2}}, "decided": KEPT, "least": 1}
    with pytest.raises(DataError, match="users that an EMCDR learns its map from, is 0"):
        zoo.fit("emcdr", log, settings)


@pytest.mark.parametrize("kind", SETTINGS)
def test_whoever_has_only_items_of_no_domain_gets_what_is_popular_in_the_target(kind):
    ids = ["film/0", "film/1", "film/2", "book/0", "book/1", "game/0"]
    items = pa.table({"item_id": ids})
    pairs = [(user, item) for user in range(6) for item in (2, 3, 4)] + [(0, 1), (1, 1), (2, 0), (3, 5)]
    user_N, item_N = np.array(pairs).T
    log = Log.of(user_N, item_N, num_users=6, num_items=6, items=items)
    laid = {"by": "item_id", "target": ["film/"], "sources": {"books": ["book/"]}}
    small = {"emcdr": {"source": {"dim": 2}, "target": {"dim": 2}, "least": 1}}.get(
        kind, {"dim": 2, "epochs": 1}
    )
    model = zoo.fit(kind, log, {"domains": laid, "decided": KEPT} | small)
    askers = Askers.strangers([rows(5), rows()])
    assert model.recommend(askers, 3)[0].tolist() == [[2, 1, 0], [2, 1, 0]]
    by_vectors_I = model.item_vectors() @ model.user_vectors(askers)[0]
    assert np.argsort(-by_vectors_I)[:3].tolist() == [2, 1, 0]


@pytest.mark.parametrize("side", ["source", "target"])
def test_propensities_of_one_side_of_an_emcdr_are_refused(side):
    settings = {"domains": {"by": "rows", "sizes": {"source": 2, "target": 2}}}
    with pytest.raises(ConfigError, match=f"{side}.propensity is ials's"):
        EmcdrConfig.parse(settings | {side: {"propensity": {"power": 0.5}}}, "a test")


@pytest.fixture(scope="module")
def domains(related) -> Domains:
    return Domains.of(related.log, related.domains)


def tower_config(related: TwoDomains, kind: type = SharedTowerConfig, **settings: object) -> FineTunedConfig:
    found = kind.parse({"domains": related.domains.model_dump(mode="json"), **TOWER, **settings}, "config")
    return found  # type: ignore[no-any-return]


class TestTower:
    def test_what_serves_is_what_was_trained(self, domains, related):
        config = tower_config(related, num_layers=2, dropout=0.0, hide_own=0.0)
        arrays, user_B = start(domains, config, [0, 1]), np.arange(110, 117)
        shown = Histories.of(domains, [0, 1]).shown(user_B, 0, config, np.random.default_rng(0))
        expected = users(as_weights(arrays), shown, config.num_layers).detach().numpy()
        tower = Tower.of(config, domains, arrays, [0, 1])
        found = tower.user_vectors(Askers.known(domains.log, user_B.astype(np.int32)))
        np.testing.assert_allclose(found[:, :-1] * np.sqrt(17), expected, atol=1e-5)
        assert (np.linalg.norm(found, axis=1) <= 1).all()

    def test_a_step_hides_the_domain_that_it_learns_of_who_has_others(self, domains, related):
        config = tower_config(related, dropout=0.0, hide_own=1.0)
        histories = Histories.of(domains, [0, 1])
        user_B = np.array([0, 150])  # the first has nothing of the target
        shown = histories.shown(user_B, 0, config, np.random.default_rng(0))
        assert not shown[0].any()
        size = [len(domains.log.histories()[user]) for user in user_B]
        size[1] -= histories.by_domain[0][150].nnz
        assert shown[1].sum(1).tolist() == pytest.approx([np.sqrt(num) for num in size], rel=1e-5)
        lonely = Histories.of(domains, [0])
        assert lonely.shown(user_B, 0, config, np.random.default_rng(0))[0][1].any(), "there is nothing else"

    def test_dropout_leaves_the_mean_as_it_is(self, domains, related):
        config = tower_config(related, dropout=0.5, hide_own=0.0)
        histories, draws = Histories.of(domains, [1]), np.random.default_rng(0)
        sums = [float(histories.shown(np.array([3]), 1, config, draws)[1].sum()) for _ in range(2000)]
        num = histories.by_domain[1][3].nnz
        assert np.mean(sums) == pytest.approx(
            np.sqrt(num), abs=4 / np.sqrt(2000)
        )  # the deviation of a sum is 1

    def test_the_part_of_the_target_alone_knows_nothing_of_a_source(self, domains, related):
        part, _ = alone(domains, tower_config(related, epochs=2))
        of_source = ~domains.is_target
        assert not part.tensors()["input"][of_source].any()
        assert not part.item_vectors()[of_source].any()


class TestFineTuning:
    def test_layers_are_let_go_from_the_top(self):
        stages = unfreezing(num_layers=2, num_domains=3)
        assert stages == [
            {input_of(0), *items_of(0)}, {"weight.1", "bias.1"}, {"weight.0", "bias.0"},
            {START, input_of(1), input_of(2)},
        ]  # fmt: skip

    def test_what_is_not_let_go_stays_as_the_source_gave_it(self, domains, related):
        settings = {"source_epochs": 3, "decided": KEPT}
        never = tower_config(related, FineTunedConfig, epochs=4, unfreeze_every=4, **settings)
        once = tower_config(related, FineTunedConfig, epochs=1, unfreeze_every=1, **settings)
        one, four = (FineTuned.moved(domains, config)[0].tensors() for config in (once, never))
        of_source = ~domains.is_target
        for name in (START, "weight.0", "bias.0"):
            np.testing.assert_array_equal(one[name], four[name])
        np.testing.assert_array_equal(one["input"][of_source], four["input"][of_source])
        assert not np.array_equal(one["input"][domains.is_target], four["input"][domains.is_target])

    def test_l2_sp_holds_the_user_tower_near_the_source(self, domains, related):
        def moved(l2_sp: float) -> float:
            settings = {"source_epochs": 3, "epochs": 6, "unfreeze_every": 0, "l2_sp": l2_sp}
            before = tower_config(related, FineTunedConfig, **(settings | {"unfreeze_every": 6, "epochs": 1}))
            after = tower_config(related, FineTunedConfig, **settings)
            was, now = (FineTuned.moved(domains, config)[0].tensors() for config in (before, after))
            return float(np.square(now["weight.0"] - was["weight.0"]).sum())

        loose, held, fixed = moved(0.0), moved(0.1), moved(100.0)
        assert fixed < 0.1 * held < 0.1 * loose

    def test_the_penalty_is_as_worked_out_by_hand(self, related):
        config = tower_config(related, FineTunedConfig, l2_sp=0.5, l2=0.1)
        ones = {name: np.ones((1, 2), np.float32) for name in (START, *target_tables())}
        weights = as_weights(ones)
        penalty = l2_sp(weights, frozenset({START}), config)
        with torch.no_grad():
            weights[START] += 3
        # .5 / 2 * (3^2 + 3^2) + .1 / 2 * (three tables of two ones)
        assert float(penalty(weights).detach()) == pytest.approx(4.5 + 0.3)


def test_a_weight_of_zero_leaves_a_domain_unlearned(domains, related):
    config = tower_config(related, epochs=2)
    before = start(domains, config, [0, 1])
    weights = as_weights(before)
    train(
        weights, Histories.of(domains, [0, 1]), config, learned={0: 1.0, 1: 0.0}, epochs=2,
        draws=np.random.default_rng(0),
    )  # fmt: skip
    after = as_arrays(weights)
    assert all(np.array_equal(after[name], before[name]) for name in items_of(1))
    assert not any(np.array_equal(after[name], before[name]) for name in items_of(0))
    assert np.isfinite(after[START]).all()


def test_rows_of_the_log_know_nobody_by_name(fitted, related):
    known = Askers.known(related.log, rows(150))
    stranger = Askers(rows(NOBODY), known.histories)
    for model in fitted.values():
        np.testing.assert_array_equal(model.scores(known), model.scores(stranger))
