"""The parts of rendered objects: pods wherever they stand, their containers, and objects that lie in a ConfigMap as text."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

Object = dict[str, Any]
LONG_RUNNING = {"Deployment", "StatefulSet", "DaemonSet", "RayService"}
CUSTOM_GROUPS = ("ray.io/", "monitoring.coreos.com/", "gateway.networking.k8s.io/")


def name_of(item: Object) -> str:
    """`Kind name`."""
    return f"{item['kind']} {item['metadata'].get('name') or item['metadata'].get('generateName')}"


def is_custom(item: Object) -> bool:
    """Whether Kubernetes itself does not know its kind."""
    return item["apiVersion"].startswith(CUSTOM_GROUPS)


def embedded(objects: Iterable[Object]) -> Iterator[Object]:
    """Objects that ConfigMaps carry as text, such as the RayJobs that CronJobs start."""
    for item in objects:
        if item["kind"] != "ConfigMap":
            continue
        for key, text in (item.get("data") or {}).items():
            if key.endswith((".json", ".yaml")):
                tree = json.loads(text) if key.endswith(".json") else yaml.safe_load(text)
                if isinstance(tree, dict) and "kind" in tree and "apiVersion" in tree:
                    yield tree


@dataclass(frozen=True)
class Pod:
    """A pod template: of which object, which part of it, its metadata and spec."""

    owner: Object
    part: str
    metadata: Object
    spec: Object

    @property
    def where(self) -> str:
        """What messages say."""
        return f"{name_of(self.owner)}{f' {self.part}' if self.part else ''}"

    @property
    def labels(self) -> dict[str, str]:
        """Its labels; KubeRay's own are not among them."""
        return self.metadata.get("labels") or {}

    @property
    def is_long_running(self) -> bool:
        """Whether it is to run until it is replaced."""
        return self.owner["kind"] in LONG_RUNNING

    def containers(self, starting: bool = True) -> Iterator[Object]:
        """Its containers, those that run before the others first."""
        if starting:
            yield from self.spec.get("initContainers") or []
        yield from self.spec["containers"]

    def as_pod(self) -> Object:
        """The same as an object of its own."""
        metadata = {"name": "pod", **{k: v for k, v in self.metadata.items() if k != "name"}}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": self.spec}


def pods(objects: Iterable[Object]) -> Iterator[Pod]:
    """All pod templates, those of Ray clusters and of embedded objects included."""
    objects = list(objects)
    for item in (*objects, *embedded(objects)):
        yield from _pods_of(item)


def _pods_of(item: Object) -> Iterator[Pod]:
    spec = item.get("spec") or {}
    match item["kind"]:
        case "Pod":
            yield Pod(item, "", item["metadata"], spec)
        case "Deployment" | "StatefulSet" | "DaemonSet" | "Job":
            yield _pod(item, "", spec["template"])
        case "CronJob":
            yield _pod(item, "", spec["jobTemplate"]["spec"]["template"])
        case "RayService":
            yield from _ray_pods(item, spec["rayClusterConfig"])
        case "RayCluster":
            yield from _ray_pods(item, spec)
        case "RayJob":
            yield from _ray_pods(item, spec.get("rayClusterSpec") or {})
            if "submitterPodTemplate" in spec:
                yield _pod(item, "submitter", spec["submitterPodTemplate"])


def _ray_pods(item: Object, cluster: Object) -> Iterator[Pod]:
    if "headGroupSpec" in cluster:
        yield _pod(item, "head", cluster["headGroupSpec"]["template"])
    for group in cluster.get("workerGroupSpecs") or []:
        yield _pod(item, group["groupName"], group["template"])


def _pod(item: Object, part: str, template: Object) -> Pod:
    return Pod(item, part, template.get("metadata") or {}, template["spec"])
