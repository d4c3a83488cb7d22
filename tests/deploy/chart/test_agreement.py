"""What the chart says twice agrees: its page and schema with its values, its environment with the code's."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from chart.reality import places
from chart.rendering import Case, ci_cases, default_values, objects_of, values_of

from tastemaker.runtime import QUIET, SERVE_MODE
from tastemaker_services.cluster_commands import KEPT_JOBS

HELM = Path(__file__).parents[3] / "helm"
pytestmark = pytest.mark.chart


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The generator, which is a script."""
    spec = importlib.util.spec_from_file_location("chart_generate", HELM / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def test_page_and_schema_are_those_of_the_values(generate: ModuleType) -> None:
    assert generate.main(["--check"]) == 0, "run python helm/generate.py"


def test_a_key_without_a_text_is_refused(generate: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("# -- Told\nfirst: 1\nsecond:\n  third: 2\n")
    with pytest.raises(ValueError, match=r"second\.third has no text"):
        generate.read_values(tmp_path)


def test_types_come_from_defaults_and_from_brackets(generate: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(
        "# -- [int] Pods\nreplicas: 1\ngroup:\n  # -- {a|b} Kind\n  kind: a\n  # -- Whether\n  on: true\n".replace(
            "on:", "enabled:"
        )
    )
    schema = generate.make_schema(generate.read_values(tmp_path))["properties"]
    assert schema["replicas"] == {"description": "Pods", "type": "integer", "minimum": 0}
    assert schema["group"]["additionalProperties"] is False
    assert schema["group"]["properties"]["kind"] == {"description": "Kind", "enum": ["a", "b"]}
    assert schema["group"]["properties"]["enabled"] == {"description": "Whether", "type": "boolean"}


def test_passwords_may_not_lie_in_the_config_map() -> None:
    schema = json.loads((HELM / "tastemaker" / "values.schema.json").read_text())
    assert "password" not in schema["$defs"]["StateSettings"]["properties"]
    assert schema["$defs"]["StateSettings"]["additionalProperties"] is False


def test_ray_runs_in_the_mode_of_the_embedded_graph() -> None:
    text = (HELM / "tastemaker" / "templates" / "_ray.tpl").read_text()
    told = dict(re.findall(r'^  "(RAY_\w+)" "(\S+)"$', text, re.MULTILINE))
    assert told == SERVE_MODE | QUIET | {"RAY_SERVE_LOG_TO_STDERR": "1", "RAY_LOG_TO_STDERR": "1"}


def test_how_many_jobs_are_kept_is_told_where_the_command_would_keep_others() -> None:
    """So that images of before the option start jobs by the chart's own values."""
    assert default_values()["jobs"]["historyLimit"] == KEPT_JOBS
    (case,) = (case for case in ci_cases() if case.name == "minimal")
    for limit, words in ((KEPT_JOBS, []), (0, ["--keep", "0"]), (10, ["--keep", "10"])):
        values = values_of(case)
        values["jobs"] = values.get("jobs", {}) | {"historyLimit": limit}
        objects = objects_of(Case(f"keeps-{limit}", tree=yaml.safe_dump(values)))
        started = [p.arguments for p in places(objects) if p.arguments[:2] == ["cluster", "start-job"]]
        assert started
        assert all(arguments[3:] == words for arguments in started)
