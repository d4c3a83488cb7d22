"""What a container of ours would find and do: its mounted files, its settings, its command, the routes and ports behind its probes."""

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from chart.objects import Object, Pod, embedded, pods

if TYPE_CHECKING:
    from tastemaker.config import Settings

OURS = "tastemaker"
RAY_CONTAINERS = ("ray-head", "ray-worker")
BROUGHT_URL = "rediss://user:word@redis.example:6379/0"
BROUGHT_KEYS = yaml.safe_dump([{"sha256": "0" * 64, "scopes": ["read", "admin"]}])


@dataclass(frozen=True)
class Place:
    """A container in its pod."""

    pod: Pod
    container: dict[str, Any]

    @property
    def where(self) -> str:
        """What messages say."""
        return f"{self.pod.where}, container {self.container['name']}"

    @property
    def arguments(self) -> list[str]:
        """What follows `tastemaker`; empty where Ray or another program runs."""
        command = [*(self.container.get("command") or [])]
        return [*command[1:], *(self.container.get("args") or [])] if command[:1] == [OURS] else []

    def literals(self) -> dict[str, str]:
        """Environment variables whose value stands in the object."""
        return {e["name"]: str(e["value"]) for e in self.container.get("env") or [] if "value" in e}

    def ports(self) -> dict[str, int]:
        """Its ports by name."""
        return {p["name"]: p["containerPort"] for p in self.container.get("ports") or []}

    def probes(self) -> Iterator[tuple[str, int]]:
        """Path and port number of its HTTP probes."""
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = (self.container.get(name) or {}).get("httpGet")
            if probe:
                yield probe["path"], self.ports().get(probe["port"], probe["port"])


def places(objects: Iterable[Object]) -> Iterator[Place]:
    """All containers."""
    for pod in pods(objects):
        yield from (Place(pod, container) for container in pod.containers())


def knows_settings(place: Place) -> bool:
    """Whether the container runs our code: by our command, or by Ray."""
    return bool(place.arguments) or "TASTEMAKER_CONFIG" in place.literals()


def mounted_files(place: Place, objects: Iterable[Object]) -> dict[str, str]:
    """What the container reads below its mounts of ConfigMaps and Secrets; what is brought along has a stand-in."""
    data = {(o["kind"], o["metadata"]["name"]): o for o in objects}
    volumes = {v["name"]: v for v in place.pod.spec.get("volumes") or []}
    files: dict[str, str] = {}
    for mount in place.container.get("volumeMounts") or []:
        volume = volumes.get(mount["name"], {})
        for source in (volume.get("projected") or {}).get("sources") or [volume]:
            for path, text in _files_of(source, data):
                if "subPath" not in mount:
                    files[f"{mount['mountPath']}/{path}"] = text
                elif mount["subPath"] == path:
                    files[mount["mountPath"]] = text
    return files


def settings_of(place: Place, objects: Iterable[Object], root: Path) -> "Settings":
    """The settings that the container's process would run with, read by the real reader from files below `root`.

    Raises:
        ConfigError: As the process would.
    """
    from tastemaker.config_sources import load_settings

    for path, text in mounted_files(place, objects).items():
        (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (root / path.lstrip("/")).write_text(text)
    environment = {
        name: str(root / value.lstrip("/"))
        if name.endswith("_FILE") or name == "TASTEMAKER_CONFIG"
        else value
        for name, value in place.literals().items()
    }
    return load_settings(environment=environment)


def commands(objects: Iterable[Object]) -> Iterator[tuple[str, list[str]]]:
    """Where, and the arguments of each `tastemaker` command: of containers, and of RayJobs' entry points."""
    objects = [*objects]
    for place in places(objects):
        if place.arguments:
            yield place.where, place.arguments
    for item in (*objects, *embedded(objects)):
        if item["kind"] == "RayJob":
            program, *arguments = shlex.split(item["spec"]["entrypoint"])
            assert program == OURS, f"{item['metadata']['name']} runs {program}"
            yield f"RayJob {item['metadata']['name']}", arguments


def parse(command: Any, arguments: list[str]) -> None:
    """Parses arguments down to the last subcommand of a click or typer program, and runs nothing.

    Raises:
        Exception: The usage error of the program's own click (typer carries one).
    """
    context = command.make_context(command.name, [*arguments])
    while hasattr(command, "resolve_command"):
        _, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        command, context = inner, inner.make_context(inner.name, rest, parent=context)


def _files_of(source: dict[str, Any], data: dict[tuple[str, str], Object]) -> Iterator[tuple[str, str]]:
    for field, kind, label in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
        if field not in source:
            continue
        told = source[field]
        item = data.get((kind, told.get(label) or told["name"]))
        texts = {} if item is None else {**(item.get("data") or {}), **(item.get("stringData") or {})}
        for entry in told.get("items") or [{"key": key, "path": key} for key in texts]:
            if item is None or entry["key"] in texts:
                yield entry["path"], texts.get(entry["key"], _stand_in(entry["path"]))


def _stand_in(path: str) -> str:
    if path.endswith("keys.yaml"):
        return BROUGHT_KEYS
    return BROUGHT_URL if path.endswith("-url") else "word"
