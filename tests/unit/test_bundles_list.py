"""`tastemaker bundles list`, on a real MLflow store."""

import json

import pytest

from tastemaker import cli, context
from tastemaker.bundle.manifest import BundleRef
from tastemaker.commands import bundles
from tastemaker.config import Settings
from tastemaker.registry.client import Registry

# SQLAlchemy 2.1 warns about a loading strategy that MLflow 3.17 uses.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture
def registry(tmp_path, make_home, monkeypatch):
    """Of a home with three versions, where lists show two."""
    home = make_home(tmp_path / "home")
    settings = Settings(home=home.root)
    registry = Registry(settings, home)
    for n in (1, 2, 3):
        sha256 = f"{n:064x}"
        registry.publish(settings.catalogue, BundleRef(f"manifests/{sha256[:12]}.json", sha256), {})
    registry.set_alias(settings.catalogue, "champion", 1, "ann", "first")
    monkeypatch.setattr(bundles, "NEWEST", 2)
    monkeypatch.setattr(context, "_settings", settings)
    return registry


def listed(capsys, *arguments):
    cli.invoke(["bundles", "list", *arguments])
    said = capsys.readouterr().out
    rows = [line.strip("│").split("│") for line in said.splitlines() if line.startswith("│")]
    return said, [[cell.strip() for cell in row] for row in rows]


def test_the_newest_versions_come_first_and_the_rest_is_counted(registry, capsys):
    said, rows = listed(capsys)
    assert [row[0] for row in rows] == ["3", "2"]
    assert "older versions left out: 1; --all shows them" in said
    said, rows = listed(capsys, "--all")
    assert [(row[0], row[3]) for row in rows] == [("3", ""), ("2", ""), ("1", "champion")]
    assert "left out" not in said
    made = {one.number: one.created for one in registry.versions("default")}
    assert rows[0][2] == made[3][:19].replace("T", " ")


def test_machines_get_all_of_them(registry, capsys):
    cli.invoke(["bundles", "list", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [one["number"] for one in found["versions"]] == [1, 2, 3]
    assert found["aliases"] == {"champion": 1}
