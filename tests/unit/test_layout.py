"""House rules of the layout: source roots, who may import whom, no circles, no pickle, no machine's paths."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOTS = {"platform": "tastemaker", "training": "tastemaker_training", "services": "tastemaker_services"}
# Lowest first. A part may import those before it and its own.
LAYERS = [
    {"errors", "types", "ids", "pacing", "strict"},
    {
        "config",
        "config_experiments",
        "config_retention",
        "config_serving",
        "config_sources",
        "home",
        "logs",
        "redaction",
        "resampling",
        "telemetry",
        "terminal",
    },
    {"context", "runtime", "client"},
    {"state"},
    {"events"},
    {"users"},
    {"data"},
    {"features"},
    {"models"},
    {"index"},
    {"bundle"},
    {"registry"},
    {"erasure", "removal"},
    {"stages"},
    {"experiments"},
    {"evaluation"},
    {"offpolicy"},
    {"promotion"},
    {"testing", "doctor", "retention"},
    {"playground"},
    {"commands"},
    {"cli"},
]
SERVICE_LAYERS = [
    {"every", "gauges", "tracing"},
    {"web"},
    {"versions"},
    {"replicas"},
    {"gateway"},
    {"routes"},
    {"graph"},
    {"stream"},
    {"admin"},
    {
        "app",
        "cluster_commands",
        "cluster_graph",
        "commands",
        "ladder_commands",
        "ray_jobs",
        "remade",
        "remade_draft",
        "replaying",
    },
]
TRAINING_LAYERS = [
    {"artifacts"},
    {"rows"},
    {"plan"},
    {"distributed"},
    {"fits"},
    {"sources"},
    {"runs"},
    {"studies"},
    {"jobs"},
    {"commands", "job_commands", "recipes"},
]
HEAVY = {"torch", "faiss", "mlflow", "implicit", "sklearn", "pandas", "ray", "fastapi", "scipy"}


def sources() -> list[Path]:
    found = [sorted((ROOT / root / package).rglob("*.py")) for root, package in ROOTS.items()]
    assert all(found), "a package has no file: rules would hold of nothing"
    return [path for paths in found for path in paths]


@cache
def imported(path: Path) -> tuple[str, ...]:
    """Modules that a file imports, in functions and for types too: those are late for what is heavy, not to dodge a rule."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module, path
            yield node.module
            for alias in node.names:  # a name of the module, or a module of the package
                yield f"{node.module}.{alias.name}"


@pytest.mark.parametrize("root", ROOTS)
def test_source_roots_are_no_packages(root: str) -> None:
    assert not (ROOT / root / "__init__.py").exists()


def test_platform_is_the_standard_library_seen_from_the_root() -> None:
    # In-process this stays green with the fault present: `platform` is loaded already.
    seen = subprocess.run(
        [sys.executable, "-c", "import platform; print(platform.system())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.strip() == "Linux"


def test_packages_import_only_the_library_and_themselves() -> None:
    allowed = {
        "tastemaker": {"tastemaker"},
        "tastemaker_training": {"tastemaker", "tastemaker_training"},
        "tastemaker_services": {"tastemaker", "tastemaker_services"},
    }
    for path in sources():
        package = path.relative_to(ROOT).parts[1]
        tops = {name.split(".")[0] for name in imported(path)}
        ours = {top for top in tops if top.startswith("tastemaker") or (top in ROOTS and top != "platform")}
        assert ours <= allowed[package], f"{path} imports {ours - allowed[package]}"


def test_the_library_knows_neither_ray_nor_http_servers() -> None:
    for path in sources():
        if path.relative_to(ROOT).parts[1] == "tastemaker":
            tops = {name.split(".")[0] for name in imported(path)}
            assert not tops & {"ray", "fastapi", "uvicorn", "starlette", "torchrec"}, path


def rank(module: str) -> int | None:
    parts = module.split(".")
    if parts[0] != "tastemaker" or len(parts) < 2 or parts[1] == "__version__":
        return None
    for i, layer in enumerate(LAYERS):
        if parts[1] in layer:
            return i
    raise AssertionError(f"{module} has no layer: add it to LAYERS")


def test_no_import_goes_upward() -> None:
    for path in sources():
        relative = path.relative_to(ROOT)
        if relative.parts[1] != "tastemaker" or (relative.name == "__init__.py" and len(relative.parts) == 3):
            continue
        own = rank("tastemaker." + relative.parts[2].removesuffix(".py"))
        for name in imported(path):
            other = rank(name)
            if other is None or own is None:
                continue
            same_part = name.split(".")[1] == relative.parts[2].removesuffix(".py")
            assert other < own or same_part or (other == own and own in (0, 1)), f"{relative} imports {name}"


@pytest.mark.parametrize(
    ("package", "layers"),
    [("tastemaker_services", SERVICE_LAYERS), ("tastemaker_training", TRAINING_LAYERS)],
    ids=["services", "training"],
)
def test_no_import_of_services_and_training_goes_upward(package: str, layers: list[set[str]]) -> None:
    ranks = {part: i for i, layer in enumerate(layers) for part in layer}
    for path in sources():
        relative = path.relative_to(ROOT)
        if relative.parts[1] != package or (relative.name == "__init__.py" and len(relative.parts) == 3):
            continue
        own = relative.parts[2].removesuffix(".py")
        assert own in ranks, f"{relative} has no layer: add it to the layers of {package}"
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == package and len(parts) > 1:
                assert ranks[parts[1]] <= ranks[own], f"{relative} imports {name}"


def test_there_are_no_import_circles() -> None:
    graph: dict[str, set[str]] = {}
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts[1:]): p for p in sources()}
    for name, path in names.items():
        graph[name.removesuffix(".__init__")] = {m for m in imported(path) if m.startswith("tastemaker")}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module in done:
            return
        for other in graph.get(module, ()):
            if other != module:
                visit(other, (*path, module))
        done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("forbidden", ["pickle", "joblib", "cloudpickle", "dill"])
def test_no_pickle_on_the_model_path(forbidden: str) -> None:
    for path in sources():
        assert forbidden not in {name.split(".")[0] for name in imported(path)}, path
        assert not re.search(r"torch\.(save|load)\(|allow_pickle=True", path.read_text()), path


def test_help_needs_no_heavy_import() -> None:
    code = f"import sys, tastemaker.cli as c; c._load_plugins(); print(sorted(set(sys.modules) & {HEAVY!r}))"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


def test_nothing_committed_carries_a_path_of_a_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.fail("run the tests in a git checkout")
    home = str(Path.home()) + "/"
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".txt", ".sh", ".json"} and path.is_file():
            text = path.read_text(encoding="utf-8")
            assert str(ROOT) + "/" not in text, name
            assert home not in text, name
