"""What every pod of the chart must have: resources, probes, and a security context as `restricted` asks, and stricter."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from chart.objects import Object, Pod

UNITS = {"m": Decimal("0.001"), "": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9)}
UNITS |= {"Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40)}
BY_THE_OPERATOR = {"ray-job-submitter"}  # KubeRay starts, watches and ends it
STANDARD_LABELS = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
)


def problems(pod: Pod) -> Iterator[str]:
    """What a pod lacks, a line for each."""
    yield from (f"{pod.where}: {text}" for text in _pod(pod.spec))
    for container in pod.containers():
        where = f"{pod.where}, container {container['name']}"
        yield from (f"{where}: {text}" for text in (*_security(container), *_resources(container)))
    if pod.is_long_running:
        for container in pod.containers(starting=False):
            for probe in ("livenessProbe", "readinessProbe"):
                if probe not in container:
                    yield f"{pod.where}, container {container['name']}: no {probe}"


def label_problems(item: Object) -> Iterator[str]:
    """Labels that an object lacks."""
    labels = item["metadata"].get("labels") or {}
    yield from (
        f"{item['kind']} {item['metadata']['name']}: no label {n}" for n in STANDARD_LABELS if n not in labels
    )


def amount(quantity: str | int | float) -> Decimal:
    """A quantity of Kubernetes as a number: 250m is 0.25, 1Ki is 1024."""
    text = str(quantity)
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return Decimal(digits) * UNITS[text[len(digits) :]]


def _pod(spec: dict[str, Any]) -> Iterator[str]:
    security = spec.get("securityContext") or {}
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        yield "may run as root"
    if (security.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield "no seccomp profile"
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield key
    if "automountServiceAccountToken" not in spec:
        yield "automountServiceAccountToken is not said"
    if any("hostPath" in volume for volume in spec.get("volumes") or []):
        yield "mounts a folder of the node"


def _security(container: dict[str, Any]) -> Iterator[str]:
    security = container.get("securityContext") or {}
    if security.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "may write its root file system"
    if (security.get("capabilities") or {}) != {"drop": ["ALL"]}:
        yield "keeps capabilities"
    if security.get("privileged"):
        yield "is privileged"


def _resources(container: dict[str, Any]) -> Iterator[str]:
    resources = container.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for key in ("cpu", "memory"):
        if key not in requests:
            yield f"requests no {key}"
    if "memory" not in limits:
        yield "has no limit of memory"
    for key in requests.keys() & limits.keys():
        if amount(requests[key]) > amount(limits[key]):
            yield f"requests {requests[key]} {key}, above its limit {limits[key]}"
