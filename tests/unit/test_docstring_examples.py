"""The examples in the docstrings of what trains and what serves; those of the library pytest collects by itself."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (ROOT / "training" / "tastemaker_training", ROOT / "services" / "tastemaker_services")
# Collecting the folders would import Ray into the process of all tests; the tuner does at once.
MODULES = sorted(
    ".".join(p.relative_to(package.parent).with_suffix("").parts)
    for package in PACKAGES
    for p in package.rglob("*.py")
    if ">>>" in p.read_text() and p.stem != "tuner"
)


@pytest.mark.filterwarnings("ignore")  # what TorchRec and fbgemm say when they are imported
@pytest.mark.parametrize("name", MODULES)
def test_the_examples_give_what_they_say(name):
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried
    assert not failed
