import pytest

from tastemaker.errors import ConfigError, UsageError
from tastemaker_training.plan.recipe import Recipe, is_recipe, packaged_recipes, read_recipe, recipe_text

BASE = """
pipeline: {retrieval: {sources: [{name: popular, quota: 10}]}}
two_tower: {fit: {epochs: 3, batch_size: 64}}
quick: {two_tower: {fit: {epochs: 1}}}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(**texts):
        for name, text in texts.items():
            (tmp_path / f"{name}.yaml").write_text(text)

    return write


def test_packaged_recipes_can_be_read_in_both_forms():
    assert packaged_recipes() == [
        "content", "movielens", "movielens-challenger", "movielens-features", "movielens-hybrid",
        "movielens-lambdamart", "movielens-sequence",
    ]  # fmt: skip
    for name in packaged_recipes():
        for quick in (False, True):
            assert read_recipe(name, quick=quick).name == name


def test_the_hybrid_weighs_kinds_of_sources_and_ranks_by_those_that_a_training_sees():
    retrieval = read_recipe("movielens-hybrid").pipeline.retrieval
    weights = {source.name: source.weight for source in retrieval.sources}
    assert (weights["two_tower"], weights["als"], weights["trending"]) == (0.5, 0.3, 0.2)
    assert retrieval.ranked_sources == ("two_tower", "als", "trending", "recent")


def test_the_recipe_of_sequences_adds_one_source_to_the_champions():
    champion, sequence = (read_recipe(name) for name in ("movielens", "movielens-sequence"))
    added = {source.name for source in sequence.pipeline.retrieval.sources} - {
        source.name for source in champion.pipeline.retrieval.sources
    }
    assert added == sequence.models.keys() == {"sequence"}
    assert sequence.ranker == champion.ranker


MODELS = "extends: movielens\nmodels: {%s: {kind: %s, config: %s}}\n"


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (("mine", "sasrecs", "{}"), "kind of model.*sasrecs"),
        (("mine", "sasrec", "{dims: 3}"), "unknown key dims"),
        (("mine", "sasrec", "{dim: 3, num_heads: 2}"), "a multiple of num_heads"),
        (("ease", "sasrec", "{}"), "none of which is taken; 'ease' is not such"),
        (("pipeline", "sasrec", "{}"), "none of which is taken; 'pipeline' is not such"),
        (("My Model", "sasrec", "{}"), "names of small letters"),
    ],
)
def test_further_models_that_cannot_be_fitted_are_refused(write, model, match):
    write(wrong=MODELS % model)
    with pytest.raises(ConfigError, match=match):
        read_recipe("wrong.yaml")


def test_a_file_with_a_pipeline_or_a_parent_is_a_recipe(write, tmp_path):
    write(
        own=BASE,
        child="extends: movielens\nmodels: {more: {kind: ease}}\n",
        plan="models: {a: {kind: ease}}\n",
    )
    found = {name: is_recipe(tmp_path / f"{name}.yaml") for name in ("own", "child", "plan")}
    assert found == {"own": True, "child": True, "plan": False}


def test_a_source_that_nothing_makes_is_refused(write):
    write(wrong="extends: movielens\npipeline: {retrieval: {sources: [{name: popular}, {name: seqence}]}}\n")
    with pytest.raises(ConfigError, match="'seqence' is none"):
        read_recipe("wrong.yaml")


def test_the_challenger_differs_from_the_champion_in_the_rankers_fit_alone():
    champion, challenger = (read_recipe(name).model_dump() for name in ("movielens", "movielens-challenger"))
    differing = {key for key, value in champion.items() if challenger[key] != value}
    assert differing == {"name", "ranker"}
    assert champion["ranker"]["model"] == challenger["ranker"]["model"]
    assert {champion["ranker"]["fit"]["loss"], challenger["ranker"]["fit"]["loss"]} == {
        "listwise",
        "pointwise",
    }


def test_quick_changes_what_its_keys_name_and_nothing_else(write):
    write(base=BASE)
    full, quick = read_recipe("base.yaml"), read_recipe("base.yaml", quick=True)
    assert (full.name, full.two_tower.fit.epochs, full.two_tower.fit.batch_size) == ("base", 3, 64)
    assert (quick.two_tower.fit.epochs, quick.two_tower.fit.batch_size) == (1, 64)


def test_an_extending_recipe_merges_groups_and_replaces_lists(write):
    write(
        base=BASE,
        child="extends: base.yaml\nseed: 5\ntwo_tower: {fit: {batch_size: 32}}\n"
        "pipeline: {retrieval: {sources: [{name: popular}, {name: ease}]}}",
    )
    child = read_recipe("child.yaml")
    assert (child.name, child.seed) == ("child", 5)
    assert (child.two_tower.fit.epochs, child.two_tower.fit.batch_size) == (3, 32)
    assert [source.name for source in child.pipeline.retrieval.sources] == ["popular", "ease"]
    assert read_recipe("child.yaml", quick=True).two_tower.fit.epochs == 1


def test_a_file_may_extend_a_packaged_recipe(write):
    write(mine="extends: movielens\nranker: {fit: {epochs: 1}}")
    mine, packaged = read_recipe("mine.yaml"), read_recipe("movielens")
    assert mine.ranker.fit.epochs == 1
    assert mine.two_tower == packaged.two_tower


def test_recipes_that_extend_each_other_are_refused(write):
    write(a="extends: b.yaml", b="extends: a.yaml")
    with pytest.raises(ConfigError, match=r"a\.yaml extends itself.*break the circle"):
        read_recipe("a.yaml")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            "two_tower: {fit: {epoch: 3}}",
            r"unknown key two_tower\.fit\.epoch, is 3, must be one of: .*epochs",
        ),
        (
            "two_tower: {fit: {epochs: 0}}",
            r"two_tower\.fit\.epochs, is 0, must be .*greater than or equal to 1",
        ),
        ("seed: seven", r"seed, is 'seven', must be"),
        ("quick: {ranker: {fit: {loss: hinge}}}", r"child\.yaml, quick: ranker\.fit\.loss, is 'hinge'"),
        ("name: Über", r"name, is 'Über'"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_limit(write, change, named):
    write(base=BASE, child=f"extends: base.yaml\n{change}")
    with pytest.raises(ConfigError, match=named):
        read_recipe("child.yaml")


def test_an_unknown_recipe_names_those_there_are():
    with pytest.raises(
        UsageError, match=r"recipe, is 'movie', must be one of content, movielens, .*or a \.yaml file"
    ):
        read_recipe("movie")


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"gone\.yaml, is 'No such file or directory'"):
        read_recipe("gone.yaml")


def test_the_printed_recipe_is_the_recipe(write):
    write(base=recipe_text(read_recipe("movielens")))
    assert read_recipe("base.yaml") == read_recipe("movielens")
    assert isinstance(read_recipe("base.yaml"), Recipe)
