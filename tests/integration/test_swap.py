"""Versions swapped, refused, rolled back and mirrored in a whole graph, under requests that come whether or not it answers."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
from ray_noise import RAY_NOISE
from tagged import NUM_ITEMS, write_bundle
from waiting import until

from tastemaker import cli, context
from tastemaker.bundle.manifest import BundleRef
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.tensor_file import file_parts
from tastemaker.config import Settings
from tastemaker.config_serving import GatewaySettings
from tastemaker.errors import ExperimentError
from tastemaker.home import Home
from tastemaker.registry.client import Registry
from tastemaker_services.app import Serving, start

pytestmark = [pytest.mark.slow, *RAY_NOISE]
REQUESTS_PER_SECOND = 15


@dataclass
class Running:
    serving: Serving
    home: Home
    settings: Settings
    store: BundleStore
    registry: Registry
    versions: dict[str, int]
    """By the letter that a bundle's item ids begin with."""
    letters: dict[str, str]
    """By bundle id."""

    def promote(self, number: int, alias: str = "champion") -> None:
        self.registry.set_alias(self.settings.catalogue, alias, number, "test", "swap")

    def publish(self, ref: BundleRef) -> int:
        return self.registry.publish(self.settings.catalogue, ref, {}).number

    def command(self, *arguments: str) -> Any:
        before = context.settings()
        context.use(self.settings)
        try:
            return cli.invoke(list(arguments))
        finally:
            context.use(before)

    def admin(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.serving.admin_url}{path}", trust_env=False, timeout=20.0)

    def state_of(self, alias: str) -> dict[str, Any]:
        found = self.admin("/admin/v1/bundles").json()["bundles"]
        return next((dict(state) for state in found if state["alias"] == alias), {"outcome": "not live"})


@dataclass
class Load:
    """Requests at fixed times of users who asked for nothing before, from a thread of their own, and what came back."""

    url: str
    users: str = field(default_factory=lambda: uuid4().hex)
    answers: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    async def run(self) -> None:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=20.0) as http:
            tasks = []
            while not self._over.is_set():
                tasks.append(asyncio.create_task(self._one(http, len(tasks))))
                await asyncio.sleep(1 / REQUESTS_PER_SECOND)
            await asyncio.gather(*tasks)

    async def _one(self, http: httpx.AsyncClient, number: int) -> None:
        body = {"user_id": f"{self.users}-{number}", "k": 5, "session": ["a3", "b5"]}
        try:
            response = await http.post("/v1/recommendations", json=body)
        except httpx.HTTPError as error:
            self.failed.append(type(error).__name__)
            return
        if response.status_code == 200:
            self.answers.append(response.json())
        else:
            self.failed.append(response.text)

    @contextmanager
    def going(self) -> Iterator[None]:
        thread = threading.Thread(target=lambda: asyncio.run(self.run()))
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = Home.make(tmp_path_factory.mktemp("swap") / "home")
    gateway = GatewaySettings(port=0, admin_port=0, deadline_ms=5000.0)
    settings = Settings(home=home.root, gateway=gateway)
    store, registry = BundleStore.of(settings, home), Registry(settings, home)
    versions, letters = {}, {}
    for letter in "ab":
        ref = write_bundle(store, [f"{letter}{i}" for i in range(NUM_ITEMS)], exploration={"share": 0.0})
        versions[letter] = registry.publish(settings.catalogue, ref, {}).number
        letters[ref.bundle_id] = letter
    registry.set_alias(settings.catalogue, "champion", versions["a"], "test", "first release")
    serving = start(settings, home)
    yield Running(serving, home, settings, store, registry, versions, letters)
    serving.stop()


@pytest.fixture
def load(running: Running) -> Load:
    return Load(running.serving.url)


def check_whole(running: Running, load: Load) -> None:
    """Nothing failed, and every answer is of one bundle."""
    assert load.failed == []
    for answer in load.answers:
        letter = running.letters[answer["bundle"]]
        assert answer["items"]
        assert {item["item_id"][0] for item in answer["items"]} == {letter}
        assert running.versions[letter] == answer["bundle_version"]


def answers_from(load: Load, letter: str, running: Running) -> None:
    until(
        lambda: load.answers and running.letters[load.answers[-1]["bundle"]] == letter,
        f"answers from {letter}",
    )


def test_swaps_back_and_forth_under_load_fail_nothing_and_mix_nothing(running: Running, load: Load) -> None:
    with load.going():
        answers_from(load, "a", running)
        for letter in "baba":
            running.promote(running.versions[letter])
            answers_from(load, letter, running)
    check_whole(running, load)
    assert {running.letters[answer["bundle"]] for answer in load.answers} == {"a", "b"}


def test_a_rollback_says_when_every_gateway_answers_with_it(
    running: Running, load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    running.promote(running.versions["b"])
    with load.going():
        answers_from(load, "b", running)
        said = running.command("rollback", "--json")
        answers_from(load, "a", running)
    check_whole(running, load)
    assert json.loads(capsys.readouterr().out) == said
    assert (said["version"], said["answered"]) == (running.versions["a"], True)


def corrupted(running: Running) -> BundleRef:
    """A bundle one of whose files is not what was published."""
    ref = write_bundle(running.store, [f"c{i}" for i in range(NUM_ITEMS)])
    manifest = Bundle.open(running.store, ref).manifest
    sha256 = manifest.files["items.parquet"].sha256
    path = running.home / "bundles" / "blobs" / "sha256" / sha256[:2] / sha256
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return ref


def without_numbers(running: Running) -> BundleRef:
    """A bundle whose ranker has learned nothing but NaN."""
    ref = write_bundle(running.store, [f"d{i}" for i in range(NUM_ITEMS)])
    bundle = Bundle.open(running.store, ref)
    spoilt = {
        name: np.full_like(value, np.nan) for name, value in bundle.tensors("ranker.safetensors").items()
    }
    sha256, size = running.store.put_parts(lambda: file_parts(spoilt))
    manifest = json.loads(bundle.manifest.to_bytes())
    manifest["files"]["ranker.safetensors"].update(sha256=sha256, size=size)
    return running.store.put_manifest("default", json.dumps(manifest).encode())


@pytest.mark.parametrize(
    ("make", "stages", "why"),
    [
        (corrupted, {"retriever", "ranker", "reranker", "gateway"}, "was changed since it was published"),
        (without_numbers, {"ranker"}, "has values that are not finite"),
    ],
)
def test_a_bundle_that_is_not_fit_is_refused_and_the_old_one_answers_on(
    running: Running, load: Load, make: Callable[[Running], BundleRef], stages: set[str], why: str
) -> None:
    running.promote(running.versions["a"])
    with load.going():
        answers_from(load, "a", running)
        bad = running.publish(make(running))
        running.promote(bad)
        state = until(
            lambda: (found := running.state_of("champion")).get("refused", {}).keys() >= stages and found,
            "refusals",
        )
        assert (state["version"], state["outcome"], state["answering"]) == (bad, "refused", 0)
        assert all(why in reason for reason in state["refused"].values())
        assert httpx.get(f"{running.serving.url}/readyz", trust_env=False).status_code == 200
        refusals = [
            line for line in running.admin("/metrics").text.splitlines()
            if line.startswith("tastemaker_bundle_refused_total") and 'reason="corrupt"' in line
        ]  # fmt: skip
        assert float(refusals[0].rsplit(" ", 1)[1]) >= len(stages)
        [row] = [row for row in running.command("versions", "--json") if row["alias"] == "champion"]
        assert row["refused"].keys() == state["refused"].keys()
        running.promote(running.versions["a"])
        until(lambda: running.state_of("champion")["outcome"] == "answers", "the alias to be mended")
    check_whole(running, load)
    assert {running.letters[answer["bundle"]] for answer in load.answers} == {"a"}


def test_a_shadow_is_mirrored_and_compared_and_never_shown(running: Running, load: Load) -> None:
    running.promote(running.versions["a"])
    running.promote(running.versions["b"], "shadow")
    until(lambda: running.state_of("shadow")["outcome"] == "answers", "the shadow to be ready")

    def report() -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = running.command("shadow", "report", "--json")
        except ExperimentError:  # nothing was mirrored or archived yet
            return None
        return found if found["num_pairs"] >= 20 else None

    with load.going():
        found = until(report, "mirrored answers in the archive")
    check_whole(running, load)
    assert {running.letters[answer["bundle"]] for answer in load.answers} == {"a"}
    assert running.letters[found["bundle"]] == "b"
    assert [running.letters[bundle] for bundle in found["shown_by"]] == ["a"]
    assert (found["overlap"], found["failed"]) == (0.0, 0.0)  # they have no item in common
    assert min(found["shadow_p50_ms"], found["shadow_all_p99_ms"]) > 0
