"""The client that starts RayJobs, against an API server of a few lines."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml

from tastemaker import cli, context
from tastemaker.errors import ConfigError, ServingError
from tastemaker_services.cluster_commands import start_job
from tastemaker_services.ray_jobs import INSTANCE, LABEL, RayJobs, read_manifest

JOB = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {"name": "retrain", "labels": {LABEL: "retrain"}},
    "spec": {"entrypoint": "tastemaker retrain movielens"},
}


class Kubernetes:
    """The part of an API server that keeps RayJobs."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.delete_status = 200
        self.tokens: list[str] = []
        kept = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kept.tokens.append(self.headers["authorization"])
                path, _, query = self.path.partition("?")
                name = path.rpartition("/rayjobs")[2].strip("/")
                if name:
                    return self._answer(200, next(j for j in kept.jobs if j["metadata"]["name"] == name))
                (selector,) = parse_qs(query)["labelSelector"]
                wanted = dict(term.split("=") for term in selector.split(","))
                return self._answer(
                    200,
                    {"items": [j for j in kept.jobs if wanted.items() <= j["metadata"]["labels"].items()]},
                )

            def do_POST(self) -> None:
                job = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if "entrypoint" not in job["spec"]:
                    return self._answer(422, {"message": "spec.entrypoint is missing"})
                job["metadata"]["name"] = job["metadata"].pop("generateName") + f"{len(kept.jobs)}"
                kept.jobs.append(job)
                return self._answer(201, job)

            def do_DELETE(self) -> None:
                if kept.delete_status != 200:
                    return self._answer(kept.delete_status, {"message": "not to be deleted"})
                name = self.path.rpartition("/")[2]
                kept.jobs = [job for job in kept.jobs if job["metadata"]["name"] != name]
                return self._answer(200, {"kind": "Status"})

            def _answer(self, status: int, body: Any) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def kubernetes() -> Iterator[Kubernetes]:
    server = Kubernetes()
    yield server
    server.stop()


@pytest.fixture
def jobs(kubernetes: Kubernetes, tmp_path: Path) -> Iterator[RayJobs]:
    (tmp_path / "token").write_text("of the pod\n")
    with RayJobs(kubernetes.url, "shop", tmp_path / "token", None) as client:
        yield client


def manifest(folder: Path, **changes: Any) -> Path:
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(JOB | changes))
    return file


def names_of(kubernetes: Kubernetes) -> list[str]:
    return [job["metadata"]["name"] for job in kubernetes.jobs]


def test_a_job_is_started_unless_one_of_its_kind_is_under_way(
    kubernetes: Kubernetes, jobs: RayJobs, tmp_path: Path
) -> None:
    job = read_manifest(manifest(tmp_path))
    assert jobs.unfinished(job) is None
    assert jobs.start(job) == "retrain-0"
    assert jobs.unfinished(job) == "retrain-0"  # no status yet
    kubernetes.jobs[0]["status"] = {"jobDeploymentStatus": "Running"}
    assert jobs.unfinished(job) == "retrain-0"
    kubernetes.jobs[0]["status"] = {"jobDeploymentStatus": "Complete"}
    assert jobs.unfinished(job) is None
    jobs.wait("retrain-0")
    kubernetes.jobs[0]["status"] = {"jobDeploymentStatus": "Failed", "message": "out of memory"}
    with pytest.raises(ServingError, match="retrain-0 failed: out of memory"):
        jobs.wait("retrain-0")
    assert set(kubernetes.tokens) == {"Bearer of the pod"}


def test_a_job_that_was_refused_is_over(kubernetes: Kubernetes, jobs: RayJobs, tmp_path: Path) -> None:
    """KubeRay never looks again at one whose fields do not go together: the next may begin."""
    job = read_manifest(manifest(tmp_path))
    jobs.start(job)
    kubernetes.jobs[0]["status"] = {"jobDeploymentStatus": "ValidationFailed", "message": "suspend is set"}
    assert jobs.unfinished(job) is None
    with pytest.raises(ServingError, match="retrain-0 failed: suspend is set"):
        jobs.wait("retrain-0")


def test_the_newest_that_ended_are_kept(kubernetes: Kubernetes, jobs: RayJobs, tmp_path: Path) -> None:
    job = read_manifest(manifest(tmp_path))
    states = ["Complete", "Failed", "Complete", "Running", "Complete"]
    for number, state in enumerate(states):
        jobs.start(job)
        kubernetes.jobs[-1]["metadata"]["creationTimestamp"] = f"2026-01-0{number + 1}T02:00:00Z"
        kubernetes.jobs[-1]["status"] = {"jobDeploymentStatus": state}
    assert jobs.old(job, 2) == ["retrain-1", "retrain-0"]
    assert jobs.old(job, 0) == ["retrain-4", "retrain-2", "retrain-1", "retrain-0"]
    assert jobs.old(job, 0, but="retrain-4") == ["retrain-2", "retrain-1", "retrain-0"]
    for name in ("retrain-1", "retrain-0"):
        jobs.delete(name)
    assert names_of(kubernetes) == ["retrain-2", "retrain-3", "retrain-4"]


def test_releases_of_one_namespace_mind_their_own_jobs(
    kubernetes: Kubernetes, jobs: RayJobs, tmp_path: Path
) -> None:
    def of(instance: str) -> dict[str, Any]:
        labels = {LABEL: "retrain", INSTANCE: instance}
        return read_manifest(manifest(tmp_path, metadata={"name": f"{instance}-retrain", "labels": labels}))

    books, music = of("books"), of("music")
    for job, state in ((books, "Complete"), (books, "Running"), (music, "Complete")):
        jobs.start(job)
        kubernetes.jobs[-1]["status"] = {"jobDeploymentStatus": state}
    assert jobs.old(books, 0) == ["books-retrain-0"]
    assert jobs.old(music, 0) == ["music-retrain-2"]
    assert jobs.unfinished(books) == "books-retrain-1"
    assert jobs.unfinished(music) is None


@pytest.mark.parametrize(
    ("status", "words", "left"),
    [
        (200, "deleted retrain-0, which had ended", ["retrain-1"]),
        (403, "warning: .*not to be deleted", ["retrain-0", "retrain-1"]),
        (404, "deleted retrain-0, which had ended", ["retrain-0", "retrain-1"]),  # somebody else was faster
    ],
)
def test_a_start_is_no_failure_because_an_old_job_stays(
    kubernetes: Kubernetes,
    jobs: RayJobs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    status: int,
    words: str,
    left: list[str],
) -> None:
    file = manifest(tmp_path)
    jobs.start(read_manifest(file))
    kubernetes.jobs[0]["status"] = {"jobDeploymentStatus": "Complete"}
    kubernetes.delete_status = status
    monkeypatch.setattr(RayJobs, "of_this_pod", lambda: jobs)
    assert start_job(file, keep=0) == {"name": "retrain-1", "started": True}
    assert re.search(words, "".join(capfd.readouterr()))
    assert names_of(kubernetes) == left


def test_what_the_api_server_refuses_is_told(jobs: RayJobs, kubernetes: Kubernetes, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"refused POST .*spec\.entrypoint is missing"):
        jobs.start(read_manifest(manifest(tmp_path, spec={})))
    with (
        RayJobs("http://127.0.0.1:1", "shop", tmp_path / "token", None) as nobody,
        pytest.raises(ServingError, match="does not answer: ConnectError"),
    ):
        nobody.start(read_manifest(manifest(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "Job"}, r"kind.*'Job'.*ray\.io/v1 RayJob"),
        ({"metadata": {"name": "retrain"}}, "the label tastemaker.io/job"),
        ({"metadata": {"labels": {LABEL: "x"}}}, "a name"),
    ],
)
def test_a_manifest_that_is_no_job_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_manifest(manifest(tmp_path, **changes))


def test_a_dry_run_shows_what_would_be_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(context, "_settings", None)
    with pytest.raises(SystemExit) as ended:
        cli.main(
            ["--home", str(tmp_path / "home"), "cluster", "start-job", str(manifest(tmp_path)), "--dry-run"]
        )
    assert ended.value.code == 0
    sent = json.loads(capsys.readouterr().out)
    assert sent["metadata"] == {"generateName": "retrain-", "labels": {LABEL: "retrain"}}
    assert sent["spec"] == JOB["spec"]
