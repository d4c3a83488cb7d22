"""The simulated world: its laws, and that it lives and ends as a process of its own."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from waiting import until

from tastemaker.data import world as world_module
from tastemaker.data.importers import ColumnMapping, import_events, save_import
from tastemaker.data.schema import Dataset, read_dataset
from tastemaker.data.world import MIN_HISTORY, REQUESTS_SHARE, SESSION_LENGTH, World, serve
from tastemaker.data.world_process import WorldProcess
from tastemaker.errors import DataError, ExperimentError
from tastemaker.home import Home

NUM_GROUPS, ITEMS_A_GROUP, USERS = 4, 30, 120


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """120 users of four tastes, each with 14 to 30 of its group's 30 items and one of another group's."""
    folder = tmp_path_factory.mktemp("world")
    draws = np.random.default_rng(5)
    rows = ["user_id,item_id,timestamp"]
    for user in range(USERS):
        group = user % NUM_GROUPS
        items = group * ITEMS_A_GROUP + draws.permutation(ITEMS_A_GROUP)[: draws.integers(14, 31)]
        stray = (items[0] + ITEMS_A_GROUP) % (NUM_GROUPS * ITEMS_A_GROUP)
        rows += [f"u{user},i{item},{1000 + place}" for place, item in enumerate([stray, *items])]
    (folder / "events.csv").write_text("\n".join(rows) + "\n")
    home = Home.make(folder / "home")
    save_import(home, "default", import_events(folder / "events.csv", ColumnMapping(), 2_000_000_000))
    return home


@pytest.fixture(scope="module")
def dataset(home: Home) -> Dataset:
    return read_dataset(home, "default")


@pytest.fixture(scope="module")
def world(dataset: Dataset) -> World:
    return World(dataset, seed=1)


@pytest.fixture(scope="module")
def process(home: Home) -> Iterator[WorldProcess]:
    with WorldProcess(home, "default", seed=1) as process:
        yield process


def group_of(item_id: str) -> int:
    return int(item_id.removeprefix("i")) // ITEMS_A_GROUP


def group_items(group: int, how_many: int = 10) -> list[str]:
    return [f"i{group * ITEMS_A_GROUP + n}" for n in range(how_many)]


def taste(session: list[str]) -> int:
    return int(np.bincount([group_of(item) for item in session]).argmax())


def test_visitors_are_new_ids_with_growing_truncated_histories(world: World, dataset: Dataset) -> None:
    visitors = world.visitors(200, seed=3, prefix="a-a")
    assert visitors[7].visitor_id == "a-a-3-7"
    assert not {visitor.visitor_id for visitor in visitors} & set(dataset.user_ids)
    histories = {
        user: [dataset.item_ids[i] for i in dataset.item_index[dataset.user_index == user]]
        for user in range(USERS)
    }
    for visitor in visitors:
        assert 1 <= len(visitor.sessions) <= len(REQUESTS_SHARE)
        first = visitor.sessions[0]
        assert MIN_HISTORY // 2 <= len(first) <= SESSION_LENGTH
        clones = [history for history in histories.values() if history[: len(first)] == first]
        assert any(
            all(session == history[: len(first) + n] for n, session in enumerate(visitor.sessions))
            for history in clones
        )


def test_numbers_of_requests_have_their_shares(world: World) -> None:
    counts = np.bincount([len(visitor.sessions) for visitor in world.visitors(3000, 1, "v")], minlength=5)[1:]
    expected = 3000 * np.array(REQUESTS_SHARE)
    # Five standard deviations of a binomial count.
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected * (1 - np.array(REQUESTS_SHARE)))).all()


def test_the_same_seed_gives_the_same_visitors_and_more_of_them_begin_alike(world: World) -> None:
    ten, twenty = world.visitors(10, 3, "v"), world.visitors(20, 3, "v")
    assert twenty[:10] == ten
    assert [v.sessions for v in world.visitors(10, 4, "v")] != [v.sessions for v in ten]


def test_visitors_prefer_what_their_user_likes(world: World) -> None:
    for visitor in world.visitors(40, 9, "v"):
        mine = taste(visitor.sessions[0])
        own = world.expected(visitor.visitor_id, group_items(mine))
        others = [world.expected(visitor.visitor_id, group_items(g)) for g in range(NUM_GROUPS) if g != mine]
        assert own > 1.5 * max(others)


def test_expected_clicks_are_examination_times_sigmoid(world: World) -> None:
    visitor = world.visitors(1, 2, "v")[0].visitor_id
    one, other = (world.expected(visitor, [item]) for item in ("i0", "i1"))
    assert world.expected(visitor, ["i0", "i1"]) == pytest.approx(one + 0.85 * other)
    assert world.expected(visitor, []) == 0
    assert 0 < one < 1


def test_an_item_that_is_unknown_is_worth_the_least(world: World, dataset: Dataset) -> None:
    visitor = world.visitors(1, 2, "v")[0].visitor_id
    least = min(world.expected(visitor, [item]) for item in dataset.item_ids)
    assert world.expected(visitor, ["never seen"]) == pytest.approx(least)


def test_click_rates_are_the_expected_ones(world: World) -> None:
    visitors = world.visitors(2000, 5, "v")
    slates = [group_items(number % NUM_GROUPS) for number in range(len(visitors))]
    clicks = [len(world.click(v.visitor_id, slate, 0)) for v, slate in zip(visitors, slates, strict=True)]
    expected = [world.expected(v.visitor_id, slate) for v, slate in zip(visitors, slates, strict=True)]
    # A sum of independent clicks has a variance of at most its mean: four standard deviations.
    assert abs(sum(clicks) - sum(expected)) < 4 * np.sqrt(sum(expected))


def test_popular_slates_get_the_reference_click_rate(world: World, dataset: Dataset) -> None:
    popular = [dataset.item_ids[i] for i in np.argsort(-np.bincount(dataset.item_index))]
    rates = []
    for visitor in world.visitors(300, 5, "v"):
        unseen = [item for item in popular if item not in set(visitor.sessions[0])][:10]
        rates.append(world.expected(visitor.visitor_id, unseen) / 10)
    assert 0.05 < np.mean(rates) < 0.15


def test_one_random_number_decides_each_position_whatever_the_slate(world: World) -> None:
    visitor = world.visitors(1, 11, "v")[0].visitor_id
    slate = group_items(1)
    before = [world.click(visitor, slate, request) for request in range(200)]
    assert before == [world.click(visitor, slate, request) for request in range(200)]
    assert len({tuple(clicked) for clicked in before}) > 3  # requests differ
    for request, clicked in enumerate(before):
        longer = world.click(visitor, [*slate, "i99"], request)
        assert longer[: len(clicked)] == clicked


def test_a_visitor_that_never_came_is_refused(world: World) -> None:
    with pytest.raises(DataError, match="unknown visitor, is 'nobody'"):
        world.expected("nobody", ["i0"])


def test_short_histories_are_not_cloned(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_module, "MIN_HISTORY", 100)
    with pytest.raises(DataError, match="no user can be cloned, must be"):
        World(dataset)


def test_serving_answers_line_by_line_and_survives_a_bad_question(dataset: Dataset) -> None:
    questions = [
        {"method": "visitors", "arguments": [1, 5, "v"]},
        {"method": "expected", "arguments": [["nobody", []]]},
        {"method": "secrets", "arguments": []},
        {"method": "expected", "arguments": [["v-5-0", []]]},
    ]
    answers = io.StringIO()
    serve(dataset, 1, io.StringIO("".join(json.dumps(q) + "\n" for q in questions)), answers)
    lines = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert lines[0] == {"result": "ready"}
    assert lines[1]["result"][0][0] == "v-5-0"
    assert "unknown visitor" in lines[2]["error"]
    assert "method of the world, is 'secrets'" in lines[3]["error"]
    assert lines[4] == {"result": [0.0]}


def test_the_process_says_what_the_world_says(process: WorldProcess, world: World) -> None:
    mine, theirs = world.visitors(5, 21, "p"), process.visitors(5, 21, "p")
    assert theirs == mine
    asked = [(v.visitor_id, group_items(g), r) for v in mine for g in range(2) for r in range(3)]
    assert process.click(asked) == [world.click(*one) for one in asked]
    slates = [(visitor, slate) for visitor, slate, _ in asked]
    assert process.expected(slates) == pytest.approx([world.expected(*one) for one in slates], rel=1e-12)
    with pytest.raises(ExperimentError, match="unknown visitor"):
        process.expected([("nobody", ["i0"])])


def test_the_process_writes_no_file_and_opens_none_of_ours(process: WorldProcess, home: Home) -> None:
    process.visitors(1, 1)
    held = {file.path for file in psutil.Process(process.pid).open_files()}
    assert not [path for path in held if path.startswith(str(home.root))]


def test_closing_ends_the_process(home: Home) -> None:
    with WorldProcess(home, "default") as process:
        pid = process.pid
    assert not psutil.pid_exists(pid)
    with pytest.raises(ExperimentError, match="ended with code"):
        process.visitors(1, 1)


def test_the_process_ends_with_its_parent(home: Home) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom tastemaker.home import Home\n"
        "from tastemaker.data.world_process import WorldProcess\n"
        f"world = WorldProcess(Home.open(Path({str(home.root)!r})), 'default')\nworld.visitors(1, 1)\n"
        "print(world.pid, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child to end")


def test_a_world_without_data_says_so(tmp_path: Path) -> None:
    with (
        WorldProcess(Home.make(tmp_path / "home"), "default") as process,
        pytest.raises(ExperimentError, match="has no data"),
    ):
        process.visitors(1, 1)
