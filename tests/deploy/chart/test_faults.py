"""The faults that `faults.py` plants follow the chart: each text that it changes is there, and no check is without one."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def faults() -> ModuleType:
    """The script."""
    spec = importlib.util.spec_from_file_location("chart_faults", HERE / "faults.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def test_each_can_be_planted(faults: ModuleType, tmp_path: Path) -> None:
    for number, fault in enumerate(faults.FAULTS):
        faults.plant(fault, tmp_path / str(number))
        changed = (tmp_path / str(number) / fault.file).read_text()
        assert changed != (faults.CHART / fault.file).read_text(), fault.told


def test_each_names_a_check(faults: ModuleType) -> None:
    for fault in faults.FAULTS:
        file, test = fault.check.split("::")
        assert re.search(rf"^def {test}", (HERE / f"{file}.py").read_text(), re.MULTILINE), fault.check


def test_each_was_seen(faults: ModuleType) -> None:
    page = faults.PAGE.read_text()
    assert [fault.told for fault in faults.FAULTS if f"| {fault.told} |" not in page] == []
