"""Recipes of click models: what is read, what is refused, what a study searches."""

import pytest

from tastemaker.errors import ConfigError
from tastemaker.models.dlrm import DlrmConfig
from tastemaker_training.plan.recipe import Recipe, packaged_recipes, read_recipe, recipe_text, search_space
from tastemaker_training.runs.step_keys import step_keys

# fbgemm warns of kernels that its CPU build lacks, and torch of interfaces that TorchRec still uses.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def parsed(**ranker) -> Recipe:
    pipeline = {"retrieval": {"sources": [{"name": "popular"}]}}
    if ranker.pop("by_id", False):
        pipeline["ranking"] = {"item_ids": True}
    return Recipe.parse({"name": "mine", "pipeline": pipeline, "ranker": ranker}, "a test")


@pytest.mark.parametrize(
    ("ranker", "match"),
    [
        ({"kind": "deepfmm"}, "kind among dlrm, lr.*'deepfmm' is none"),
        ({"kind": "deepfm", "config": {"dims": 3}}, "unknown key dims"),
        ({"config": {"dim": 3}}, "config is of click models"),
        ({"kind": "lr", "model": {"targets": ["click", "like"]}}, "predicts the click alone"),
        ({"kind": "lr", "model": {"position": True}}, "reads no position"),
        ({"kind": "lr", "model": {"context": ["hours", "hours"]}}, "named once each"),
        ({"by_id": True}, "the DLRM knows no items by id"),
        ({"kind": "din"}, "history of a DIN"),
        ({"kind": "dssm", "config": {"query_fields": ["user"], "item_fields": ["item_tags"]}}, "tower"),
    ],
)
def test_a_ranker_that_cannot_be_fitted_is_refused_with_the_recipe(ranker, match):
    with pytest.raises(ConfigError, match=match):
        parsed(**ranker)


def test_din_reads_the_history_by_id():
    assert parsed(kind="din", by_id=True).ranker.kind == "din"


def test_what_of_the_dlrm_is_not_read_makes_no_click_model_anew():
    shape = DlrmConfig(dense_features=("popular_z",), num_tags=1, num_years=1, num_categories=1)

    def key(recipe: Recipe, dlrm: DlrmConfig = shape):
        nothing = dict.fromkeys(
            ("rejections", "slots", "events", "attributes", "warm_start", "click_weights")
        )
        return step_keys(recipe, "f" * 64, dlrm, homes={}, **nothing)["ranker"]

    deepfm = parsed(kind="deepfm")
    assert key(deepfm) != key(parsed())
    assert key(deepfm) == key(parsed(kind="deepfm", fit={"epochs": 9}, model={"dropout": 0.3}))
    assert key(deepfm) == key(deepfm, shape.model_copy(update={"embedding_dim": 2}))
    for other in (
        parsed(kind="deepfm", config={"dim": 4}),
        parsed(kind="fm"),
        parsed(kind="deepfm", fit={"negative_share": 0.5}),
    ):
        assert key(deepfm) != key(other)
    assert key(deepfm) != key(deepfm, shape.model_copy(update={"num_tags": 2}))


def test_the_recipe_of_trees_searches_its_own_settings_and_none_of_the_dlrms():
    assert "movielens-lambdamart" in packaged_recipes()
    champion, trees = read_recipe("movielens"), read_recipe("movielens-lambdamart")
    assert trees.pipeline == champion.pipeline
    assert trees.two_tower == champion.two_tower
    paths = [path for path in search_space("movielens-lambdamart") if path.startswith("ranker.")]
    assert paths
    assert all(path.startswith("ranker.config.") for path in paths)


def test_a_recipe_searches_what_it_writes_itself_and_may_write_only_what_is_read(tmp_path):
    def written(ranker: str) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(f"extends: movielens\nranker: {ranker}\n")
        return str(path)

    space = "{default: 0.1, search: [0.1, 0.3]}"
    own = search_space(written(f"{{kind: lr, fit: {{hidden_share: {space}}}}}"))
    assert [path for path in own if path.startswith("ranker.")] == ["ranker.fit.hidden_share"]
    for ranker, key in (
        ("{kind: lr, fit: {epochs: 3}}", "fit.epochs"),
        (f"{{kind: lr, model: {{dropout: {space}}}}}", "model.dropout"),
    ):
        with pytest.raises(ConfigError, match=f"ranker.{key}.*a lr does not read it"):
            read_recipe(written(ranker))
    # What a resolved recipe holds is all of it.
    whole = tmp_path / "whole.yaml"
    whole.write_text(recipe_text(read_recipe("movielens-lambdamart")))
    assert read_recipe(str(whole)) == read_recipe("movielens-lambdamart")


def test_a_study_of_a_click_model_has_trials_of_ten_reports(tmp_path):
    from tastemaker.config import Settings
    from tastemaker_training.studies.wanted import wanted_study

    study = wanted_study(Settings(home=tmp_path), "movielens-lambdamart", 1, part="ranker", num_trials=3)
    assert (study.part, study.max_epochs, study.recipe.tune.num_trials) == ("ranker", 10, 3)
    assert study.spaces.keys() == {
        f"ranker.config.{name}" for name in ("num_leaves", "learning_rate", "min_rows")
    }
    trial = study.recipe_of({"ranker.config.num_leaves": 31, "ranker.config.learning_rate": 0.1})
    assert (trial.ranker.config["num_leaves"], trial.ranker.config["learning_rate"]) == (31, 0.1)
    assert trial.ranker.fit == study.recipe.ranker.fit


def test_trees_are_not_compared_by_a_loss_that_they_have_not(tmp_path):
    from tastemaker.config import Settings
    from tastemaker_training.studies.wanted import wanted_study

    written = tmp_path / "mine.yaml"
    written.write_text("extends: movielens-lambdamart\ntune: {metric: loss, mode: min}\n")
    with pytest.raises(ConfigError, match=r"tune.metric, is 'loss', must be one of held_out_ndcg@10"):
        wanted_study(Settings(home=tmp_path), str(written), 1, part="ranker")
