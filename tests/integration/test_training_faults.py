"""A lost rank and a lost driver: training goes on from the last checkpoint, and ends as an undisturbed one."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from small import SmallHome

pytestmark = pytest.mark.slow

RECIPE = """
extends: small.yaml
seed: {seed}
two_tower: {{fit: {{epochs: 6, checkpoint: {{every_steps: 3}}}}}}
ranker: {{fit: {{epochs: 1}}}}
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> SmallHome:
    small = SmallHome(tmp_path_factory.mktemp("faults"))
    small.write("plain.yaml", RECIPE.format(seed=11))
    small.run("train", "plain.yaml", "--workers", "2")
    return small


def reported(folder: Path) -> list[dict[str, float]]:
    reports = map(json.loads, (folder / "curves.jsonl").read_text().splitlines())
    return [report for report in reports if "epoch" in report]


def curve(folder: Path) -> list[dict[str, float]]:
    """What each epoch reached, without how fast it went."""
    return [
        {name: value for name, value in report.items() if name != "rows_per_second"}
        for report in reported(folder)
    ]


def two_towers(small: SmallHome) -> set[Path]:
    return set((small.home / "checkpoints").glob("two-tower-*"))


def train_until_checkpoint(small: SmallHome, seed: int, at_epoch: int, *arguments: str):
    """A training that has a checkpoint of the first fit at `at_epoch`, and its folder."""
    before = two_towers(small)
    small.write(f"disturbed-{seed}.yaml", RECIPE.format(seed=seed))
    process = small.start("train", f"disturbed-{seed}.yaml", *arguments)
    wait(process, lambda: two_towers(small) - before)
    (folder,) = two_towers(small) - before
    wait(process, lambda: list(folder.glob(f"checkpoints/train/{at_epoch:06d}-*/manifest.json")))
    return process, folder


def wait(process, found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 240
    while not found():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def kill(process) -> None:
    """Kills the driver alone; its ranks end by themselves."""
    started = ranks(process)
    assert started
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(started, timeout=60)[1]


def ranks(process) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "RayTrainWorker" in " ".join(child.cmdline())]


def forget(folder: Path) -> None:
    """The undisturbed training's result, so that the same recipe is trained again."""
    (folder / "complete.json").unlink()


def test_a_killed_rank_changes_nothing_in_the_end(small):
    (plain,) = two_towers(small)
    undisturbed, weights = curve(plain), (plain / "refit" / "two_tower.safetensors").read_bytes()
    forget(plain)
    process = small.start("train", "plain.yaml", "--workers", "2", "--json")
    wait(process, lambda: list(plain.glob("checkpoints/train/000002-*/manifest.json")))
    first, second = ranks(process)
    assert first.pid != second.pid
    second.kill()
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert json.loads(out)[0]["recipe"] == "plain", "what Ray says of the lost rank stays off stdout"
    assert curve(plain) == undisturbed
    assert (plain / "refit" / "two_tower.safetensors").read_bytes() == weights
    assert not (plain / "checkpoints").exists()


def test_a_killed_driver_goes_on_by_resume_on_another_number_of_ranks(small):
    process, folder = train_until_checkpoint(small, 12, 3, "--workers", "2")
    kill(process)
    newest = max(folder.glob("checkpoints/train/*/manifest.json"))
    before = json.loads(newest.read_text())
    assert before["num_ranks"] == 2
    small.run("train", "disturbed-12.yaml", "--workers", "1", "--resume")
    reports = [report for report in reported(folder) if report["fit"] == "train"]
    assert [report["epoch"] for report in reports] == [1, 2, 3, 4, 5, 6]
    # What two ranks had reported is what the curve of one goes on from.
    earlier = before["position"]["curve"]
    assert len(earlier) >= 3
    assert [{key: report[key] for key in earlier[0]} for report in reports[: len(earlier)]] == earlier
    assert not list((small.home / "checkpoints").glob("workers-*"))


def test_without_resume_an_interrupted_training_begins_again(small):
    process, folder = train_until_checkpoint(small, 13, 1, "--workers", "1")
    kill(process)
    marked = max(folder.glob("checkpoints/train/*/manifest.json"))
    manifest = json.loads(marked.read_text())
    manifest["position"]["curve"][0]["loss"] = 1234.5
    marked.write_text(json.dumps(manifest))
    small.run("train", "disturbed-13.yaml", "--workers", "1")
    reports = [report for report in reported(folder) if report["fit"] == "train"]
    assert [report["epoch"] for report in reports] == [1, 2, 3, 4, 5, 6]
    assert reports[0]["loss"] != 1234.5


def test_a_damaged_checkpoint_stops_a_resumption_before_its_first_step(small):
    process, folder = train_until_checkpoint(small, 14, 2, "--workers", "1")
    kill(process)
    newest = max(path.parent for path in folder.glob("checkpoints/train/*/manifest.json"))
    victim = newest / ".metadata"
    victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    again = small.start("train", "disturbed-14.yaml", "--workers", "1", "--resume")
    _, error = again.communicate(timeout=300)
    assert again.returncode == 1
    assert f"{victim} was changed after it was written: resume from another checkpoint" in error
    assert newest.exists()
