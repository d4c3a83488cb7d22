"""Whether NetworkPolicies let through what the platform does, and name no pod that never is."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from chart.objects import Object, Pod, name_of, pods
from chart.references import HOST, selects

COMPONENT = "app.kubernetes.io/component"


@dataclass(frozen=True)
class Arrow:
    """A pod speaks to a port of pods that a Service selects."""

    pod: Pod
    service: str
    selector: tuple[tuple[str, str], ...]
    port: int


def components(objects: Iterable[Object]) -> set[str]:
    """The components that pods belong to."""
    return {pod.labels[COMPONENT] for pod in pods(objects) if COMPONENT in pod.labels}


def named(objects: Iterable[Object]) -> Iterator[tuple[str, str]]:
    """Each policy and a component that it names."""
    for policy in _policies(objects):
        spec = policy["spec"]
        selectors = [spec["podSelector"]]
        for rule in [*(spec.get("ingress") or []), *(spec.get("egress") or [])]:
            peers = [*(rule.get("from") or []), *(rule.get("to") or [])]
            selectors += [p["podSelector"] for p in peers if "podSelector" in p]
        for selector in selectors:
            if COMPONENT in (selector.get("matchLabels") or {}):
                yield name_of(policy), selector["matchLabels"][COMPONENT]


def problems(objects: Iterable[Object]) -> Iterator[str]:
    """Pods that only `deny-all` holds, and arrows that a policy cuts."""
    objects = [*objects]
    policies = _policies(objects)
    if not policies:
        return
    for pod in pods(objects):
        mine = [p for p in policies if _holds(p, pod.labels)]
        if not any(p["spec"].get("egress") for p in mine):
            yield f"{pod.where}: no policy lets it speak"
    for arrow in arrows(objects):
        told = f"{arrow.pod.where} to {arrow.service}:{arrow.port}"
        for target in pods(objects):
            if not selects(dict(arrow.selector), target.labels):
                continue
            outward = (
                r for p in policies if _holds(p, arrow.pod.labels) for r in p["spec"].get("egress") or []
            )
            inward = (r for p in policies if _holds(p, target.labels) for r in p["spec"].get("ingress") or [])
            if not any(_lets(rule, "to", target.labels, arrow.port) for rule in outward):
                yield f"{told}: no policy lets it out"
            if not any(_lets(rule, "from", arrow.pod.labels, arrow.port) for rule in inward):
                yield f"{told}: no policy of {target.where} lets it in"


def arrows(objects: Iterable[Object]) -> Iterator[Arrow]:
    """What pods speak to, by the URLs in their environment, arguments and settings file."""
    objects = [*objects]
    services = {o["metadata"]["name"]: o["spec"] for o in objects if o["kind"] == "Service"}
    config = "".join(
        yaml.safe_dump(o["data"])
        for o in objects
        if o["kind"] == "ConfigMap" and "config.yaml" in (o.get("data") or {})
    )
    seen = set()
    for pod in pods(objects):
        for container in pod.containers():
            texts = [str(e.get("value", "")) for e in container.get("env") or []]
            texts += map(str, container.get("args") or [])
            if any(e["name"].startswith("MLFLOW_TRACKING") for e in container.get("env") or []):
                texts.append(config)  # the registry's address stands in the settings
            for host, port in (found for text in texts for found in HOST.findall(text)):
                selector = services.get(host, {}).get("selector")
                key = (pod.where, host, port)
                if selector and port and key not in seen:
                    seen.add(key)
                    target = _target_port(services[host], int(port), pods(objects))
                    yield Arrow(pod, host, tuple(selector.items()), target)


def _target_port(service: dict[str, Any], port: int, known: Iterable[Pod]) -> int:
    target = next((p["targetPort"] for p in service["ports"] if p["port"] == port), port)
    if isinstance(target, int):
        return target
    chosen = (pod for pod in known if selects(service["selector"], pod.labels))
    ports = (p for pod in chosen for c in pod.containers() for p in c.get("ports") or [])
    return next(p["containerPort"] for p in ports if p.get("name") == target)


def _policies(objects: Iterable[Object]) -> list[Object]:
    return [o for o in objects if o["kind"] == "NetworkPolicy"]


def _holds(policy: Object, labels: dict[str, str]) -> bool:
    return selects(policy["spec"]["podSelector"].get("matchLabels") or {}, labels)


def _lets(rule: dict[str, Any], side: str, labels: dict[str, str], port: int) -> bool:
    ports = rule.get("ports")
    if ports and not any(p.get("port") == port and p.get("protocol", "TCP") == "TCP" for p in ports):
        return False
    peers = rule.get(side)
    selectors = [p["podSelector"] for p in peers or [] if "podSelector" in p and "namespaceSelector" not in p]
    return not peers or any(selects(s.get("matchLabels") or {}, labels) for s in selectors)
