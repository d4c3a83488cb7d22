"""Starts RayJobs from inside a pod: a CronJob's small client, with no right but to create, get, list and delete RayJobs.

A schedule thus makes no Ray cluster before its time, and no second one while the first is at work. KubeRay removes the
cluster of a job that has ended; the RayJob itself, with its submitter's log, would stay for ever: `old` names those that may go.
"""

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
import yaml

from tastemaker.errors import ConfigError, ServingError

API: Final = "ray.io/v1"
LABEL: Final = "tastemaker.io/job"
"""Whose value two RayJobs of one kind share."""
INSTANCE: Final = "app.kubernetes.io/instance"
"""Whose value RayJobs of one release share: of two releases in a namespace each minds its own."""
FAILED: Final = frozenset({"Failed", "ValidationFailed"})
ENDED: Final = FAILED | {"Complete"}
"""`status.jobDeploymentStatus` of a RayJob that is through."""
ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
LOOK_SECONDS: Final = 10.0


def read_manifest(path: Path) -> dict[str, Any]:
    """The RayJob in a file, its name made the beginning of a generated one.

    Raises:
        ConfigError: It is no RayJob, or lacks a name or the label `tastemaker.io/job`.
    """
    try:
        job = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"RayJob {path}", value=str(error), mend="give a YAML or JSON file") from error
    kind = (job.get("apiVersion"), job.get("kind")) if isinstance(job, dict) else None
    if kind != (API, "RayJob"):
        raise ConfigError(f"RayJob {path}: kind", value=kind, limit=f"{API} RayJob", mend="correct it")
    metadata = dict(job.get("metadata") or {})
    name = metadata.pop("name", None) or metadata.get("generateName", "").rstrip("-")
    if not name or LABEL not in (metadata.get("labels") or {}):
        raise ConfigError(f"RayJob {path}: metadata", limit=f"a name and the label {LABEL}", mend="add them")
    return job | {"metadata": metadata | {"generateName": f"{name}-"}}


class RayJobs:
    """The RayJobs of one namespace, through the API server.

    Args:
        url: Of the API server.
        namespace: Whose.
        token_file: The service account's token, which is read for every call: Kubernetes renews it.
        ca_file: Who signed the server's certificate; None trusts the system's.
    """

    def __init__(self, url: str, namespace: str, token_file: Path, ca_file: Path | None) -> None:
        import ssl

        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        self._path = f"/apis/{API}/namespaces/{namespace}/rayjobs"
        self._token_file = token_file
        self._client = httpx.Client(base_url=url, verify=context, timeout=30.0, trust_env=False)

    @classmethod
    def of_this_pod(cls) -> Self:
        """By what Kubernetes mounts into every pod with a service account.

        Raises:
            ConfigError: This is no such pod.
        """
        host = os.environ.get("KUBERNETES_SERVICE_HOST")
        if host is None or not (ACCOUNT / "token").exists():
            raise ConfigError(
                "no service account is mounted", mend="run it in a pod with automountServiceAccountToken"
            )
        shown = f"[{host}]" if ":" in host else host
        url = f"https://{shown}:{os.environ.get('KUBERNETES_SERVICE_PORT', '443')}"
        return cls(url, (ACCOUNT / "namespace").read_text().strip(), ACCOUNT / "token", ACCOUNT / "ca.crt")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def unfinished(self, job: dict[str, Any]) -> str | None:
        """The name of a RayJob of the same kind and release that has not ended; None where there is none."""
        names = [one["metadata"]["name"] for one in self._of_kind(job) if _state(one) not in ENDED]
        return names[0] if names else None

    def old(self, job: dict[str, Any], keep: int, but: str = "") -> list[str]:
        """Names of RayJobs of the same kind and release that have ended, newest first, without the newest `keep` and without `but`."""
        ended = [one["metadata"] for one in self._of_kind(job) if _state(one) in ENDED]
        names = [str(one["name"]) for one in sorted(ended, key=_created, reverse=True)]
        return [name for name in names if name != but][keep:]

    def delete(self, name: str) -> None:
        """Takes a RayJob away, unless somebody already did."""
        self._call("DELETE", f"{self._path}/{name}", may_lack=True)

    def start(self, job: dict[str, Any]) -> str:
        """Creates it; its name."""
        return str(self._call("POST", self._path, json=job)["metadata"]["name"])

    def wait(self, name: str) -> None:
        """Returns once it is complete.

        Raises:
            ServingError: It failed, or was deleted.
        """
        while (state := _state(job := self._call("GET", f"{self._path}/{name}"))) not in ENDED:
            time.sleep(LOOK_SECONDS)
        if state in FAILED:
            reason = str(job["status"].get("message", ""))[:300] or "no reason is given"
            raise ServingError(
                f"RayJob {name} failed: {reason}", mend=f"see `kubectl describe rayjob {name}`"
            )

    def _of_kind(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        labels = job["metadata"]["labels"]
        selector = ",".join(f"{name}={labels[name]}" for name in (LABEL, INSTANCE) if name in labels)
        found = self._call("GET", self._path, params={"labelSelector": selector})
        items: list[dict[str, Any]] = found.get("items", [])
        return items

    def _call(self, method: str, path: str, *, may_lack: bool = False, **more: Any) -> dict[str, Any]:
        try:
            token = self._token_file.read_text(encoding="utf-8").strip()
            reply = self._client.request(method, path, headers={"authorization": f"Bearer {token}"}, **more)
            found: dict[str, Any] = reply.json()
        except (httpx.HTTPError, OSError, ValueError) as error:
            raise ServingError(
                f"the API server does not answer: {type(error).__name__}",
                mend="check the pod's service account and network policy",
            ) from error
        if reply.is_error and not (may_lack and reply.status_code == httpx.codes.NOT_FOUND):
            raise ServingError(
                f"the API server refused {method} {path}: {str(found.get('message', reply.status_code))[:300]}",
                mend="give the service account create, get, list and delete on rayjobs.ray.io",
            )
        return found


def _state(job: dict[str, Any]) -> str:
    return str((job.get("status") or {}).get("jobDeploymentStatus", ""))


def _created(metadata: dict[str, Any]) -> str:
    return str(metadata.get("creationTimestamp", ""))
