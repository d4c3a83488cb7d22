"""Whether what objects refer to is there: volumes, Secrets and their keys, accounts, selectors, ports, hosts, claims.

What an installation brings along is known by the values that name it, such as `existingSecret`.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from chart.objects import Object, Pod, embedded, name_of, pods

BROUGHT = re.compile(r"(existing(Secret|Claim)|tlsSecret)$")
HOST = re.compile(r"(?:https?|rediss?|postgresql)://(?:[^/@\s]*@)?([a-z][a-z0-9.-]*)(?::(\d+))?")
FILE = re.compile(r"(?:^|ssl_ca_certs=|sslrootcert=)(/(?:run|etc)/[\w./-]+)")


class References:
    """The objects of one render, and what its values say is there already."""

    def __init__(self, objects: Iterable[Object], values: dict[str, Any]) -> None:
        self.objects = [*objects]
        self.pods = [*pods(self.objects)]
        self.inner = [*embedded(self.objects)]
        self._brought = set(_brought(values))
        self._named = {(o["kind"], o["metadata"]["name"]): o for o in self.objects}
        for item in self.objects:
            if item["kind"] == "RayService" and "serveService" in item["spec"]:
                service = item["spec"]["serveService"]
                self._named["Service", service["metadata"]["name"]] = service
            for claim in (
                item["spec"].get("volumeClaimTemplates", []) if item["kind"] == "StatefulSet" else []
            ):
                for number in range(item["spec"].get("replicas", 1)):
                    name = f"{claim['metadata']['name']}-{item['metadata']['name']}-{number}"
                    self._named["PersistentVolumeClaim", name] = claim

    def problems(self) -> Iterator[str]:
        """What leads nowhere, a line for each."""
        seen = [name_of(o) for o in self.objects]
        yield from (f"{name}: rendered twice" for name in sorted({n for n in seen if seen.count(n) > 1}))
        for pod in self.pods:
            yield from (f"{pod.where}: {text}" for text in self._pod(pod))
        for item in self.objects:
            yield from (f"{name_of(item)}: {text}" for text in self._object(item))

    def is_there(self, kind: str, name: str, key: str | None = None) -> bool:
        """Whether an object is rendered, with that key where one is asked for, or brought along."""
        item = self._named.get((kind, name))
        if item is None:
            return kind in ("Secret", "PersistentVolumeClaim") and name in self._brought
        return key is None or any(
            key in (item.get(part) or {}) for part in ("data", "stringData", "binaryData")
        )

    def _pod(self, pod: Pod) -> Iterator[str]:
        account = pod.spec.get("serviceAccountName")
        if account is None or not self.is_there("ServiceAccount", account):
            yield f"no ServiceAccount {account}"
        volumes = {v["name"]: v for v in pod.spec.get("volumes") or []}
        claims = (
            pod.owner["spec"].get("volumeClaimTemplates", []) if pod.owner["kind"] == "StatefulSet" else []
        )
        known = volumes.keys() | {claim["metadata"]["name"] for claim in claims}
        for volume in volumes.values():
            yield from self._volume(volume)
        mounted = set()
        for container in pod.containers():
            yield from self._container(container, known, volumes)
            mounted |= {m["name"] for m in container.get("volumeMounts") or []}
        yield from (f"volume {name} is mounted nowhere" for name in sorted(volumes.keys() - mounted))

    def _volume(self, volume: dict[str, Any]) -> Iterator[str]:
        sources = (volume.get("projected") or {}).get("sources") or [volume]
        for source in sources:
            for field, kind, label in (
                ("configMap", "ConfigMap", "name"),
                ("secret", "Secret", "secretName"),
                ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
            ):
                if field in source:
                    told = source[field]
                    name = told.get(label) or told["name"]
                    if not self.is_there(kind, name):
                        yield f"volume {volume['name']}: no {kind} {name}"
                    for item in told.get("items") or []:
                        if not self.is_there(kind, name, item["key"]):
                            yield f"volume {volume['name']}: {kind} {name} has no key {item['key']}"

    def _container(
        self, container: dict[str, Any], known: set[str], volumes: dict[str, Any]
    ) -> Iterator[str]:
        where = f"container {container['name']}"
        mounts = container.get("volumeMounts") or []
        paths = [m["mountPath"] for m in mounts]
        yield from (f"{where}: two mounts at {p}" for p in sorted({p for p in paths if paths.count(p) > 1}))
        yield from (f"{where}: no volume {m['name']}" for m in mounts if m["name"] not in known)
        names = [e["name"] for e in container.get("env") or []]
        yield from (f"{where}: {n} is set twice" for n in sorted({n for n in names if names.count(n) > 1}))
        for entry in container.get("env") or []:
            for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                told = (entry.get("valueFrom") or {}).get(field)
                if told and not self.is_there(kind, told["name"], told["key"]):
                    yield f"{where}: {entry['name']}: no {kind} {told['name']} with key {told['key']}"
        for source in container.get("envFrom") or []:
            for field, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
                if field in source and not self.is_there(kind, source[field]["name"]):
                    yield f"{where}: no {kind} {source[field]['name']}"
        texts = [str(e.get("value", "")) for e in container.get("env") or []]
        texts += [*map(str, container.get("command") or []), *map(str, container.get("args") or [])]
        for text in texts:
            yield from (f"{where}: {problem}" for problem in self._hosts(text))
            yield from (f"{where}: {p}" for p in _files(text, mounts, volumes))
        ports = container.get("ports") or []
        named = {p.get("name") for p in ports} | {p["containerPort"] for p in ports}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            for action in ("httpGet", "tcpSocket"):
                port = ((container.get(probe) or {}).get(action) or {}).get("port")
                if port is not None and port not in named:
                    yield f"{where}: {probe} asks port {port}, which it does not name"

    def _hosts(self, text: str) -> Iterator[str]:
        ours = {name for kind, name in self._named if kind == "Service"}
        for host, port in HOST.findall(text):
            if "." in host or host in ("localhost",):
                continue
            if host not in ours:
                yield f"no Service {host}"
            elif port and int(port) not in {p["port"] for p in self._named["Service", host]["spec"]["ports"]}:
                yield f"Service {host} has no port {port}"

    def _object(self, item: Object) -> Iterator[str]:
        spec = item.get("spec") or {}
        match item["kind"]:
            case "Deployment" | "StatefulSet":
                if not selects(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]):
                    yield "its selector does not match its pods"
                services = [spec["serviceName"]] if "serviceName" in spec else []
                yield from self._named_ones([{"kind": "Service", "name": name} for name in services])
            case "Service":
                yield from self._selected(
                    spec.get("selector") or {}, [p["targetPort"] for p in spec["ports"]]
                )
            case "PodDisruptionBudget" | "PodMonitor":
                ports = [e["port"] for e in spec.get("podMetricsEndpoints") or []]
                yield from self._selected(spec["selector"].get("matchLabels") or {}, ports)
            case "HorizontalPodAutoscaler":
                yield from self._named_ones([spec["scaleTargetRef"]])
            case "RoleBinding":
                yield from self._named_ones([item["roleRef"], *item["subjects"]])
            case "Ingress" | "HTTPRoute":
                yield from self._routes(item)
            case "ConfigMap":
                settings = [text for key, text in (item.get("data") or {}).items() if key == "config.yaml"]
                yield from (problem for text in settings for problem in self._hosts(text))

    def _named_ones(self, named: list[dict[str, str]]) -> Iterator[str]:
        for told in named:
            if not self.is_there(told["kind"], told["name"]):
                yield f"no {told['kind']} {told['name']}"

    def _selected(self, selector: dict[str, str], ports: list[Any]) -> Iterator[str]:
        chosen = [pod for pod in self.pods if selects(selector, pod.labels)]
        if not chosen:
            yield f"no pod has {selector}"
            return
        for port in ports:
            if not any(port in _ports(pod) for pod in chosen):
                yield f"no pod that it selects has port {port}"

    def _routes(self, item: Object) -> Iterator[str]:
        spec = item["spec"]
        if item["kind"] == "HTTPRoute":
            backends = [(b["name"], b["port"]) for rule in spec["rules"] for b in rule["backendRefs"]]
            paths = [m["path"]["value"] for rule in spec["rules"] for m in rule["matches"]]
        else:
            entries = [path for rule in spec["rules"] for path in rule["http"]["paths"]]
            services = [entry["backend"]["service"] for entry in entries]
            backends = [(s["name"], s["port"].get("number", s["port"].get("name"))) for s in services]
            paths = [entry["path"] for entry in entries]
            for tls in spec.get("tls") or []:
                if not self.is_there("Secret", tls["secretName"]):
                    yield f"no Secret {tls['secretName']}"
        for name, port in backends:
            if not self.is_there("Service", name):
                yield f"no Service {name}"
            elif not any(
                port in (p["port"], p.get("name")) for p in self._named["Service", name]["spec"]["ports"]
            ):
                yield f"Service {name} has no port {port}"
        yield from (
            f"lets {path} out, which is not below /v1" for path in paths if not path.startswith("/v1")
        )


def _files(text: str, mounts: list[Any], volumes: dict[str, Any]) -> Iterator[str]:
    """Files in a text that no mount brings, or that are not among the items of the volume that is mounted there."""
    for path in FILE.findall(text):
        over = [
            m for m in mounts if path == m["mountPath"] or path.startswith(m["mountPath"].rstrip("/") + "/")
        ]
        if not over:
            yield f"{path} is in no mount"
            continue
        mount = max(over, key=lambda m: len(m["mountPath"]))
        volume = volumes.get(mount["name"], {})
        items = [i["path"] for source in _sources(volume) for i in source.get("items") or []]
        file = path.removeprefix(mount["mountPath"]).lstrip("/")
        if items and file and file not in items:
            yield f"{path} is not in volume {mount['name']}, which has {', '.join(items)}"


def _sources(volume: dict[str, Any]) -> list[Any]:
    projected = (volume.get("projected") or {}).get("sources") or [volume]
    return [source[field] for source in projected for field in ("secret", "configMap") if field in source]


def _ports(pod: Pod) -> set[Any]:
    ports = [port for container in pod.containers() for port in container.get("ports") or []]
    return {p["containerPort"] for p in ports} | {p.get("name") for p in ports}


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def _brought(values: Any, key: str = "") -> Iterator[str]:
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _brought(value, name)
    elif isinstance(values, str) and values and BROUGHT.search(key):
        yield values
