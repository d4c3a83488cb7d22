"""A catalogue of which `tastemaker gc` is to collect what is in no use."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gc_shop import Shop, forty_days_on

from tastemaker.home import Home


@pytest.fixture(scope="module")
def gc_home(tmp_path_factory: pytest.TempPathFactory, make_home: Callable[[Path], Home]) -> Home:
    return make_home(tmp_path_factory.mktemp("gc") / "home")


@pytest.fixture
def shop(state: Any, gc_home: Home, tmp_path: Path) -> Shop:
    return Shop(state, gc_home, tmp_path / "store")


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty days have gone by for whoever asks what is old."""
    forty_days_on(monkeypatch)
