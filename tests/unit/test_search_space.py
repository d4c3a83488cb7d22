import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import ConfigError
from tastemaker_training.plan.recipe import packaged_recipes, read_recipe, recipe_text, search_space
from tastemaker_training.plan.search_space import Range, Space, split_spaces, with_values

BASE = """
pipeline: {retrieval: {sources: [{name: popular, quota: 10}]}}
two_tower:
  model: {dim: {default: 64, search: [32, 64, 128]}}
  fit:
    batch_size: {default: 96, search: {low: 32, high: 256, step: 32}}
    optimizer: {table_learning_rate: {default: 0.1, search: {low: 0.01, high: 1.0, log: true}}}
quick: {two_tower: {model: {dim: 8}}}
"""
LEARNING_RATE = "two_tower.fit.optimizer.table_learning_rate"


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(**texts):
        for name, text in texts.items():
            (tmp_path / f"{name}.yaml").write_text(text)

    return write


def parse(written):
    return Space.parse(written, "ranker.x", "recipe r")


def test_a_recipe_has_its_defaults_and_its_spaces_apart(write):
    write(base=BASE)
    recipe = read_recipe("base.yaml")
    assert (recipe.two_tower.model.dim, recipe.two_tower.fit.batch_size) == (64, 96)
    assert recipe.two_tower.fit.optimizer.table_learning_rate == 0.1
    assert search_space("base.yaml") == {
        "two_tower.model.dim": Space(64, (32, 64, 128)),
        "two_tower.fit.batch_size": Space(96, Range(low=32.0, high=256.0, step=32.0)),
        LEARNING_RATE: Space(0.1, Range(low=0.01, high=1.0, log=True)),
    }
    write(resolved=recipe_text(recipe))
    assert read_recipe("resolved.yaml") == recipe
    assert search_space("resolved.yaml") == {}


def test_quick_and_extending_recipes_change_defaults_ranges_and_whole_spaces(write):
    write(
        base=BASE,
        child="extends: base.yaml\ntwo_tower:\n"
        "  fit: {batch_size: 64, optimizer: {table_learning_rate: {default: 0.5, search: {low: 0.2}}}}\n"
        "  model: {temperature: {default: 0.1, search: [0.05, 0.1]}}",
    )
    assert "two_tower.model.dim" not in search_space("base.yaml", quick=True)
    assert read_recipe("base.yaml", quick=True).two_tower.model.dim == 8
    child = search_space("child.yaml")
    assert child[LEARNING_RATE] == Space(0.5, Range(low=0.2, high=1.0, log=True))
    assert child["two_tower.model.temperature"] == Space(0.1, (0.05, 0.1))
    assert "two_tower.fit.batch_size" not in child
    assert read_recipe("child.yaml").two_tower.fit.batch_size == 64


def test_packaged_recipes_can_be_tuned_in_both_parts():
    trained = [name for name in packaged_recipes() if read_recipe(name).pipeline.ranker]
    assert set(packaged_recipes()) - set(trained) == {"content"}
    for name in trained:
        assert {path.partition(".")[0] for path in search_space(name)} == {"two_tower", "ranker"}


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("{default: 64, search: []}", r"two_tower\.model\.dim\.search, is \[\], must be a list of choices, or"),
        ("{default: 64, search: abc}", r"model\.dim\.search, is 'abc', must be a list of choices, or a range"),
        ("{default: 48, search: [32, 64]}", r"model\.dim\.default, is 48, must be one of \[32, 64\]"),
        ("{search: [32, 64]}", r"two_tower\.model\.dim: key default is missing"),
        ("{default: 64, search: [64], among: 3}", r"model\.dim: unknown key among, is 3, must be one of: default, se"),
        ("{default: 64, search: {low: 32}}", r"model\.dim\.search: key high is missing"),
        ("{default: 64, search: {low: 32, high: 64, logs: true}}", r"dim\.search: unknown key logs, is True"),
        ("{default: 64, search: {low: 1e1, high: 64}}", r"dim\.search: low, is '1e1', must be .*valid number"),
        ("{default: 64, search: {low: 1.5, high: 64}}", r"low, is 1\.5, must be a whole number, as the default 64"),
        ("{default: 64, search: {low: 64, high: 64}}", r"low, is 64\.0, must be below the high 64"),
        ("{default: 64, search: {low: 0, high: 64, log: true}}", r"low, is 0\.0, must be above 0 where log"),
        ("{default: 64, search: {low: 1, high: 99, log: true, step: 7}}", r"step, is 7\.0, must be left out where"),
        ("{default: 64, search: {low: 65, high: 99}}", r"default, is 64, must be between 65 and 99"),
        ("{default: 64, search: {low: 8, high: 64, step: 12}}", r"default, is 64, must be 8 plus a multiple of the"),
        ("{default: 64, search: {low: 4, high: 71, step: 12}}", r"high, is 71\.0, must be 4 plus a multiple of the"),
        ("{default: 64, search: {low: 4, high: 64, step: 0}}", r"step, is 0, must be .*greater than 0"),
        ("{default: wide, search: {low: 4, high: 64}}", r"must be a list of choices, for the default 'wide' is no"),
        ("{default: 64, search: [64, 0]}", r"search of two_tower\.model\.dim: two_tower\.model\.dim, is 0, must be"),
        ("{default: 64, search: {low: 0, high: 64}}", r"search of two_tower\.model\.dim: .*dim, is 0, must be"),
        ("{default: 64, search: [64, big]}", r"search of two_tower\.model\.dim: .*dim, is 'big', must be"),
    ],
)  # fmt: skip
def test_a_wrong_space_is_named_with_its_limit(write, written, named):
    write(
        child=f"extends: movielens\ntwo_tower: {{model: {{dim: 64}}}}\nquick: {{two_tower: {{model: {{dim: {written}}}}}}}"
    )
    with pytest.raises(ConfigError, match=rf"child\.yaml, quick.*{named}"):
        read_recipe("child.yaml")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("seed: {default: 0, search: [0, 1]}", r"seed cannot be searched, must be below two_tower or ranker"),
        ("memory: {ease: {l2: {default: 9.0, search: [9.0]}}}", r"memory\.ease\.l2 cannot be searched"),
        ("ranker: {fit: {epochs: {default: 5, search: [5]}}}", r"ranker\.fit\.epochs cannot .*tune\.max_epochs"),
        ("ranker: {fit: {epoch: {default: 5, search: [5]}}}", r"unknown key ranker\.fit\.epoch, is 5, must be one"),
    ],
)  # fmt: skip
def test_a_space_where_nothing_can_be_searched_is_refused(write, text, named):
    write(base=f"{BASE}\n{text}")
    with pytest.raises(ConfigError, match=named):
        search_space("base.yaml")


def test_choices_may_be_anything_that_a_recipe_may_say():
    space = parse({"default": [32], "search": [[32], [64, 32], None, "x"]})
    assert [space.encode(value) for value in space.bounds()] == [0, 1, 2, 3]
    assert [space.decode(index) for index in range(4)] == [[32], [64, 32], None, "x"]
    assert space.distribution().choices == (0, 1, 2, 3)


def test_a_space_of_whole_numbers_stays_one():
    space = parse({"default": 64, "search": {"low": 32, "high": 128, "step": 32}})
    assert (space.distribution().low, space.distribution().high, space.distribution().step) == (32, 128, 32)
    assert space.bounds() == (32, 128)
    assert all(isinstance(value, int) for value in (*space.bounds(), space.decode(96)))
    logarithmic = parse({"default": 8, "search": {"low": 1, "high": 64, "log": True}}).distribution()
    assert (logarithmic.low, logarithmic.high, logarithmic.log) == (1, 64, True)


def test_an_integer_may_stand_for_a_float_in_a_float_space():
    space = parse({"default": 1.0, "search": {"low": 0, "high": 3}})
    assert space.bounds() == (0.0, 3.0)
    assert isinstance(space.decode(2), float)


@given(
    st.one_of(
        st.lists(st.one_of(st.integers(), st.text(), st.none()), min_size=1, unique_by=repr).map(
            lambda choices: {"default": choices[0], "search": choices}
        ),
        st.tuples(st.integers(1, 99), st.integers(100, 999)).map(
            lambda ends: {"default": ends[0], "search": {"low": ends[0], "high": ends[1], "log": True}}
        ),
        st.tuples(st.floats(0.1, 1.0), st.floats(1.5, 9.0)).map(
            lambda ends: {"default": ends[1], "search": {"low": ends[0], "high": ends[1]}}
        ),
    )
)
def test_a_space_comes_back_as_it_was_written(written):
    space = parse(written)
    assert parse(space.plain()) == space
    assert space.decode(space.encode(space.default)) == space.default


def test_replacing_values_leaves_the_tree_and_its_other_values():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert with_values(tree, {"a.c.d": 5, "e": 6}) == {"a": {"b": 1, "c": {"d": 5}}, "e": 6}
    assert tree == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert split_spaces(tree, "r") == (tree, {})
