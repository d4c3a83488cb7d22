"""Runs, versions, aliases and their history, in a real MLflow store of a temporary home."""

import json
import logging
import subprocess
import sys
import threading
import time
from dataclasses import FrozenInstanceError
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tastemaker.bundle.manifest import BundleRef
from tastemaker.config import RegistrySettings, Settings
from tastemaker.errors import RegistryError, UsageError
from tastemaker.home import Home
from tastemaker.registry.client import Registry
from tastemaker.registry.versions import Named

# SQLAlchemy 2.1 warns about a loading strategy that MLflow 3.17 uses.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def ref(n):
    sha256 = f"{n:064x}"
    return BundleRef(f"manifests/default/{sha256[:12]}.json", sha256)


@pytest.fixture(scope="module")
def registry(tmp_path_factory, make_home):
    # A name that a URI has to quote, as homes of people do.
    return Registry(Settings(), make_home(tmp_path_factory.mktemp("h") / "größe 100% #1?"))


@pytest.fixture
def catalogue(registry, request):
    """A catalogue of three versions, of this test alone."""
    name = f"c-{abs(hash(request.node.name)) % 10**8}"
    for n in (1, 2, 3):
        registry.publish(name, ref(n), {"ndcg@10": n / 10})
    return name


def test_a_version_is_numbered_and_knows_its_bundle(registry, catalogue):
    version = registry.version(catalogue, 2)
    assert (version.number, version.ref, version.metrics, version.run_id) == (
        2,
        ref(2),
        {"ndcg@10": 0.2},
        None,
    )
    assert [v.number for v in registry.versions(catalogue)] == [1, 2, 3]


def test_publishing_a_bundle_again_gives_its_version(registry, catalogue):
    assert registry.publish(catalogue, ref(1), {}).number == 1
    assert len(registry.versions(catalogue)) == 3


def test_an_alias_names_one_version_until_it_is_moved(registry, catalogue):
    registry.set_alias(catalogue, "champion", 1, "ann", "first")
    registry.set_alias(catalogue, "challenger", 1, "ann", "A/A")
    registry.set_alias(catalogue, "champion", 3, "bob", "better NDCG, größer")
    assert {alias: v.number for alias, v in registry.aliases(catalogue).items()} == {
        "champion": 3,
        "challenger": 1,
    }
    assert registry.version(catalogue, "champion").ref == ref(3)


def test_versions_that_are_known_are_not_read_again(registry, catalogue, monkeypatch):
    first, second, _ = registry.versions(catalogue)
    registry.set_alias(catalogue, "champion", 1, "ann", "first")
    read, own = [], registry._client.get_model_version
    monkeypatch.setattr(
        registry._client, "get_model_version", lambda name, number: read.append(number) or own(name, number)
    )
    seen = registry.read_named(catalogue)
    assert (seen.aliases, read) == ({"champion": first}, ["1"])
    assert registry.read_named(catalogue, seen) == seen
    assert read == ["1"]
    registry.set_alias(catalogue, "champion", 2, "ann", "better")
    read.clear()
    assert registry.read_named(catalogue, seen).aliases == {"champion": second}
    assert read == ["2"]


def test_a_catalogue_that_was_made_anew_has_other_versions_under_the_same_numbers(registry, catalogue):
    registry.set_alias(catalogue, "champion", 1, "ann", "first")
    seen = registry.read_named(catalogue)
    registry._client.delete_registered_model(catalogue)
    assert registry.read_named(catalogue, seen) == Named(0, {})
    registry.publish(catalogue, ref(9), {})
    registry.set_alias(catalogue, "champion", 1, "ann", "first again")
    now = registry.read_named(catalogue, seen)
    assert (now.aliases["champion"].number, now.aliases["champion"].ref) == (1, ref(9))
    assert now.created_ms > seen.created_ms


def test_history_says_what_was_live_when_and_who_moved_it_and_why(registry, catalogue):
    before_ms = time.time_ns() // 1_000_000 - 1
    first = registry.set_alias(catalogue, "champion", 1, "ann", "first")
    second = registry.set_alias(catalogue, "champion", 2, "bob", "besser", forced=True)
    other = registry.set_alias(catalogue, "shadow", 3, "eve", "trial")
    assert registry.history(catalogue) == [first, second, other]
    assert (second.previous, second.actor, second.reason, second.forced) == (1, "bob", "besser", True)
    assert first.timestamp_ms < second.timestamp_ms < other.timestamp_ms
    assert registry.live_at(catalogue, "champion", before_ms) is None
    assert registry.live_at(catalogue, "champion", second.timestamp_ms - 1) == first
    assert registry.live_at(catalogue, "champion", other.timestamp_ms + 1) == second
    with pytest.raises(FrozenInstanceError):
        first.reason = "another"


def test_rollback_goes_one_step_back_each_time(registry, catalogue):
    for number in (1, 2, 2, 3):
        registry.set_alias(catalogue, "champion", number, "ann", "")
    assert registry.rollback(catalogue, "champion", "bob", "too slow").number == 2
    assert registry.rollback(catalogue, "champion").number == 1
    with pytest.raises(RegistryError, match="named no other version before: promote a version instead"):
        registry.rollback(catalogue, "champion")
    assert registry.aliases(catalogue)["champion"].number == 1
    assert [(m.version, m.previous, m.kind) for m in registry.history(catalogue)] == [
        (1, None, "set"), (2, 1, "set"), (2, 2, "set"), (3, 2, "set"), (2, 3, "rollback"), (1, 2, "rollback"),
    ]  # fmt: skip
    assert registry.history(catalogue)[-2].reason == "too slow"
    registry.set_alias(catalogue, "champion", 3, "ann", "again")
    assert registry.rollback(catalogue, "champion").number == 1


def test_what_does_not_exist_is_named(registry, catalogue):
    for wanted in (9, 0, -1, "shadow"):
        with pytest.raises(
            RegistryError, match=f"has no version or alias {wanted}: `tastemaker bundles list`"
        ):
            registry.version(catalogue, wanted)
    with pytest.raises(RegistryError, match="has no version or alias 9"):
        registry.set_alias(catalogue, "champion", 9, "ann", "")
    assert registry.history(catalogue) == []
    assert registry.aliases("unheard-of") == {}
    assert registry.versions("unheard-of") == []
    with pytest.raises(UsageError, match="catalogue name"):
        registry.aliases("No Such' OR 1=1")


@pytest.mark.parametrize("alias", ["", "latest", "v12", "Champion", "a/b", "1st", "x" * 41])
def test_a_name_that_cannot_be_an_alias_is_refused(registry, catalogue, alias):
    with pytest.raises(UsageError, match="choose champion, challenger or shadow"):
        registry.set_alias(catalogue, alias, 1, "ann", "")


def test_a_reason_that_is_too_long_is_refused(registry, catalogue):
    with pytest.raises(UsageError, match="must be at most 1000 characters"):
        registry.set_alias(catalogue, "champion", 1, "ann", "x" * 1000)


def test_a_run_keeps_parameters_curves_and_files(registry):
    with registry.run("two-tower") as run:
        run.log_params({"optimizer": {"lr": 0.1}, "ks": [10, 50]} | {f"p{n}": n for n in range(150)})
        run.log_metrics({"ndcg@10": 0.25}, step=1)
        run.log_metrics({"ndcg@10": 0.5}, step=2)
        run.log_json("recipe/resolved.json", {"é": 1})
    kept = registry._client.get_run(run.id)
    assert kept.info.status == "FINISHED"
    assert kept.info.run_name == "two-tower"
    assert (kept.data.params["optimizer.lr"], kept.data.params["ks"], len(kept.data.params)) == (
        "0.1",
        "[10, 50]",
        152,
    )
    curve = registry._client.get_metric_history(run.id, "ndcg_at_10")
    assert [(point.step, point.value) for point in curve] == [(1, 0.25), (2, 0.5)]
    artifact = next((registry._home / "mlflow/artifacts").rglob("resolved.json"))
    assert json.loads(artifact.read_text()) == {"é": 1}


def test_a_run_that_fails_or_is_stopped_says_so(registry):
    for error, status in ((ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")):
        with pytest.raises(error), registry.run("short") as run:
            raise error
        assert registry._client.get_run(run.id).info.status == status


def test_runs_nest_fail_with_a_reason_and_go_on(registry):
    with registry.run("study") as study:
        with registry.run("good", parent=study.id, tags={"tastemaker.trial": "0"}) as good:
            good.set_tags({"tastemaker.outcome": "completed"})
        with registry.run("bad", parent=study.id) as bad:
            bad.fail("the loss is not a number")
    read = registry._client.get_run
    assert read(good.id).data.tags.items() >= {
        "mlflow.parentRunId": study.id, "tastemaker.trial": "0", "tastemaker.outcome": "completed",
    }.items()  # fmt: skip
    assert (read(bad.id).info.status, read(bad.id).data.tags["tastemaker.failure"]) == (
        "FAILED",
        "the loss is not a number",
    )
    with registry.run("study", again=study.id) as again:
        assert read(study.id).info.status == "RUNNING"
    assert (again.id, read(study.id).info.status) == (study.id, "FINISHED")


def test_nested_runs_that_nobody_will_end_are_ended(registry):
    with registry.run("study") as study, registry.run("other") as other:
        with registry.run("done", parent=study.id):
            pass
        left = registry._begin("left", study.id, {})
        elsewhere = registry._begin("left", other.id, {})
        assert registry.end_children(study.id) == {"done"}
    assert registry._client.get_run(left).info.status == "KILLED"
    assert registry._client.get_run(elsewhere).info.status == "RUNNING"


def test_the_store_is_in_wal_mode_and_quiet(registry):
    import sqlite3

    with sqlite3.connect(registry._home / "mlflow/mlflow.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()
    assert logging.getLogger("alembic").getEffectiveLevel() == logging.WARNING


@pytest.mark.slow  # MLflow's client of a server imports Feast, if it is installed
def test_a_server_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    settings = Settings(registry=RegistrySettings(tracking_uri="http://127.0.0.1:9"))
    registry = Registry(settings, Home.make(tmp_path / "home"))
    with pytest.raises(
        RegistryError, match=r"cannot read catalogue default: .*: check registry.tracking_uri"
    ):
        registry.aliases("default")


def test_a_server_that_knows_another_password_is_told_apart(tmp_path, monkeypatch):
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.end_headers()
            self.wfile.write(b"You are not authenticated.")

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = Settings(registry=RegistrySettings(tracking_uri=f"http://127.0.0.1:{server.server_port}"))
        registry = Registry(settings, Home.make(tmp_path / "home"))
        mend = "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        try:
            with pytest.raises(RegistryError, match=rf"401.*: {mend}"):
                registry.aliases("default")
        finally:
            server.shutdown()


_OPEN = """
import sys
from pathlib import Path
from tastemaker.bundle.manifest import BundleRef
from tastemaker.config import Settings
from tastemaker.home import Home
from tastemaker.registry.client import Registry
import mlflow
print("ready", flush=True)
sys.stdin.readline()
registry = Registry(Settings(), Home.make(Path(sys.argv[1])))
sha256 = sys.argv[2] * 64
with registry.run("r") as run:
    pass
version = registry.publish("default", BundleRef(f"manifests/default/{sha256[:12]}.json", sha256), {}, run.id)
registry.set_alias("default", "champion", version.number, sys.argv[2], "")
print(version.number, len(registry.history("default")))
"""


def test_two_processes_may_open_one_empty_store_at_once(tmp_path):
    home = str(tmp_path / "home")
    both = [
        subprocess.Popen(
            [sys.executable, "-c", _OPEN, home, letter],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for letter in "ab"
    ]  # fmt: skip
    try:
        assert [process.stdout.readline() for process in both] == ["ready\n", "ready\n"]
        answers = [process.communicate("\n", timeout=120) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], answers
    assert sorted(out.split()[0] for out, _ in answers) == ["1", "2"]
    assert [errors for _, errors in answers] == ["", ""]
