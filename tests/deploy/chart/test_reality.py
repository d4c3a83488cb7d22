"""Nothing in the chart is fiction: commands, settings, variables, probes and ports are those of the code."""

import ast
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart.objects import Object, pods
from chart.reality import (
    RAY_CONTAINERS,
    Place,
    commands,
    knows_settings,
    mounted_files,
    parse,
    places,
    settings_of,
)
from chart.rendering import Case, ci_cases, objects_of, random_cases

IMAGES = {"HOME", "TZ", "PGDATA", "PGPASSWORD", "POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD_FILE"}
"""Variables of the system and of the PostgreSQL image, whose programs are not here to be asked."""
OF_LIBRARIES = {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "PGSSLROOTCERT"}
"""Read by OpenSSL, requests, botocore and libpq."""
READERS = ("ray", "mlflow", "prometheus_client")


@pytest.fixture(scope="module")
def program() -> Any:
    """The real command line, its plugins loaded."""
    import typer

    from tastemaker import cli

    cli._load_plugins()
    return typer.main.get_command(cli.app)


def test_commands_parse(program: Any, objects: tuple[Object, ...]) -> None:
    found = list(commands(objects))
    for where, arguments in found:
        try:
            parse(program, arguments)
        except Exception as error:
            raise AssertionError(f"{where}: tastemaker {' '.join(arguments)}: {error}") from error
    assert {tuple(arguments[:2]) for _, arguments in found} > {("cluster", "admin"), ("cluster", "consumer")}


@pytest.mark.filterwarnings("ignore")  # of MLflow's own modules
def test_mlflow_commands_parse() -> None:
    from mlflow.cli import cli

    found = {
        tuple(place.container.get("args") or [])
        for case in [*ci_cases(), *random_cases()]
        for place in places(objects_of(case))
        if place.container.get("command") == ["mlflow"]
    }
    assert found
    for arguments in found:
        parse(cli, list(arguments))


def test_settings_are_read(objects: tuple[Object, ...], tmp_path: Path) -> None:
    """By the real reader, from the mounted files and the environment; state and keys get where they are needed."""
    ours = [place for place in places(objects) if knows_settings(place)]
    for number, place in enumerate(ours):
        try:
            settings = settings_of(place, objects, tmp_path / str(number))
        except Exception as error:
            raise AssertionError(f"{place.where}: {error}") from error
        starts_jobs = place.arguments[:2] == ["cluster", "start-job"]
        assert starts_jobs or settings.state.url, f"{place.where}: no state.url"
        assert settings.home == Path("/var/lib/tastemaker"), place.where
        if place.arguments == ["cluster", "admin"] or (
            place.container["name"] == "ray-worker" and place.pod.owner["kind"] == "RayService"
        ):
            assert settings.gateway.keys, f"{place.where}: no API keys"


def test_ports_are_those_of_the_settings(objects: tuple[Object, ...], tmp_path: Path) -> None:
    for number, place in enumerate(p for p in places(objects) if knows_settings(p) and p.ports()):
        settings = settings_of(place, objects, tmp_path / str(number))
        known = {
            "serve": settings.gateway.port,
            "admin": settings.gateway.admin_port,
            "exporter": settings.exporter.port,
        }
        told = {name: port for name, port in place.ports().items() if name in known}
        assert told == {name: known[name] for name in told}, place.where
        host = {"admin": settings.gateway.admin_host, "exporter": settings.exporter.host}
        assert {host[name] for name in told if name in host} <= {"0.0.0.0"}, place.where


def test_probe_paths_are_routes(objects: tuple[Object, ...]) -> None:
    asked: dict[str, set[str]] = {}
    for place in places(objects):
        for path, port in place.probes():
            asked.setdefault(_listener(place, port), set()).add(path)
    routes = _routes()
    assert set(asked) <= set(routes)
    assert {name: paths - routes[name] for name, paths in asked.items()} == {name: set() for name in asked}


def _listener(place: Place, port: int) -> str:
    if place.container["name"] in RAY_CONTAINERS:
        return "gateway" if port == place.ports().get("serve") else "ray"
    return "exporter" if "exporter" in place.ports() else place.container["name"]


def _routes() -> dict[str, set[str]]:
    """Routes of our listeners as FastAPI has them; of Ray and MLflow, the paths in their sources."""
    from tastemaker.config_serving import GatewaySettings
    from tastemaker_services.admin.exporter import create_exporter
    from tastemaker_services.admin.listener import create_admin, gateway_openapi

    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    return {
        "exporter": {route.path for route in create_exporter(folder).routes},
        "admin": {route.path for route in create_admin(GatewaySettings(), folder).routes},
        "gateway": set(gateway_openapi(GatewaySettings())["paths"]),
        "ray": _literals("ray", "dashboard/modules/reporter/reporter_head.py")
        | _literals("ray", "dashboard/modules/reporter/healthz_agent.py"),
        "mlflow": _literals("mlflow", "server/__init__.py"),
    }


@pytest.fixture(autouse=True)
def metrics_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))


def _literals(package: str, file: str) -> set[str]:
    return {
        n.value
        for n in ast.walk(_tree(package, file))
        if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }


def _tree(package: str, file: str) -> ast.Module:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse((Path(spec.origin).parent / file).read_text())


def test_ray_containers_have_the_serve_mode() -> None:
    """That of the embedded graph, but with logs where a cluster collects them."""
    from tastemaker.runtime import QUIET, SERVE_MODE

    wanted = SERVE_MODE | QUIET | {"RAY_SERVE_LOG_TO_STDERR": "1", "RAY_LOG_TO_STDERR": "1"}
    for case in ci_cases():
        for place in places(objects_of(case)):
            if place.container["name"] in RAY_CONTAINERS:
                told = place.literals()
                assert {name: told.get(name) for name in wanted} == wanted, f"{case.name}: {place.where}"


def test_variables_are_read_by_a_program() -> None:
    """Each name stands in a script that the container has, or in a package that reads it."""
    strange = set()
    for case in [*ci_cases(), *random_cases()]:
        objects = objects_of(case)
        for place in places(objects):
            names = {e["name"] for e in place.container.get("env") or []} - IMAGES - OF_LIBRARIES
            scripts = [text for path, text in mounted_files(place, objects).items() if path.endswith(".sh")]
            words = set(re.findall(r"\w+", " ".join(scripts)))
            words |= set(
                re.findall(r"\$\((\w+)\)", json.dumps(place.container))
            )  # in another variable or argument
            strange |= {n for n in names if not n.startswith("TASTEMAKER_") and n not in words}
    assert strange - _known_to_packages(strange) == set()


def _known_to_packages(names: set[str]) -> set[str]:
    """Ray's core adds its prefix itself, so its library holds the rest of the name."""
    searched = {name: {name, name.removeprefix("RAY_")} for name in names}
    words = sorted(set().union(*searched.values()))
    folders = [find_spec(package).submodule_search_locations[0] for package in READERS]  # type: ignore[union-attr,index]
    told = subprocess.run(
        ["grep", "-rhoawF", "--include=*.py", "--include=_raylet.so", *[f"--regexp={w}" for w in words], *folders],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = set(told.stdout.split())
    return {name for name, either in searched.items() if either & found} | {
        n for n in names if n.startswith("NCCL_")
    }


@pytest.mark.parametrize("case", ci_cases(), ids=lambda case: case.name)
def test_jobs_start_dry(case: Case, tmp_path: Path) -> None:
    """The real command takes the mounted manifest of each CronJob that starts a RayJob."""
    started = [p for p in places(objects_of(case)) if p.arguments[:2] == ["cluster", "start-job"]]
    assert started
    for place in started:
        files = mounted_files(place, objects_of(case))
        manifest = tmp_path / Path(place.arguments[2]).name
        manifest.write_text(files[place.arguments[2]])
        told = _tastemaker("cluster", "start-job", str(manifest), "--dry-run", home=tmp_path)
        assert told.returncode == 0, f"{place.where}: {told.stderr}"
        job = json.loads(told.stdout)
        assert job["kind"] == "RayJob"
        assert job["metadata"]["labels"]["tastemaker.io/job"] == manifest.stem


def _tastemaker(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("tastemaker")
    environment = {**os.environ, "TASTEMAKER_HOME": str(home / "home")}
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, env=environment)


@pytest.mark.filterwarnings("ignore")  # of Ray's own modules
def test_serve_config_is_serves_own(objects: tuple[Object, ...]) -> None:
    """Ray's schema takes it, its import path names a function of ours, and its port is the gateway's."""
    from ray.serve.schema import ServeDeploySchema

    for item in objects:
        if item["kind"] == "RayService":
            config = yaml.safe_load(item["spec"]["serveConfigV2"])
            schema = ServeDeploySchema.parse_obj(config)
            module, name = schema.applications[0].import_path.split(":")
            package, file = module.split(".")
            functions = {n.name for n in _tree(package, f"{file}.py").body if isinstance(n, ast.FunctionDef)}
            assert name in functions
            ports = [place.ports().get("serve") for place in places([item])]
            assert set(ports) - {None} == {schema.http_options.port}


def test_scripts_are_shell(tmp_path: Path) -> None:
    """Those that ConfigMaps carry, each once."""
    texts = {
        (item["metadata"]["name"], name, text)
        for case in [*ci_cases(), *random_cases()]
        for item in objects_of(case)
        if item["kind"] == "ConfigMap"
        for name, text in (item.get("data") or {}).items()
        if name.endswith(".sh")
    }
    assert texts
    for owner, name, text in texts:
        told = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True, check=False)
        assert told.returncode == 0, f"{owner} {name}: {told.stderr}"
    assert all("set -e" in text for _, _, text in texts)


def test_scripts_that_run_are_mounted() -> None:
    for case in [*ci_cases(), *random_cases()]:
        objects = objects_of(case)
        for place in places(objects):
            command = place.container.get("command") or []
            if command[:1] == ["sh"] and command[1:2] != ["-c"]:
                assert command[1] in mounted_files(place, objects), (
                    f"{case.name}: {place.where}: {command[1]}"
                )
        assert [*pods(objects)]
