from pathlib import Path
from typing import Self

import pytest
from pydantic import Field, field_validator, model_validator

from tastemaker.config import Settings
from tastemaker.config_sources import load_settings, setting_origins
from tastemaker.errors import ConfigError
from tastemaker.strict import Strict


def settings_file(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_then_file_then_environment_then_flags(tmp_path: Path) -> None:
    file = settings_file(
        tmp_path, "catalogue: from-file\ngateway: {port: 1, admin_port: 2, deadline_ms: 3.0}\n"
    )
    environment = {"TASTEMAKER_GATEWAY__ADMIN_PORT": "20", "TASTEMAKER_GATEWAY__DEADLINE_MS": "30"}
    settings, origins = setting_origins(file, environment, {"gateway.deadline_ms": 300.0, "home": None})
    gateway = settings.gateway
    assert (settings.catalogue, gateway.port, gateway.admin_port, gateway.deadline_ms) == (
        "from-file",
        1,
        20,
        300.0,
    )
    assert gateway.host == "127.0.0.1"
    assert origins == {
        "catalogue": str(file),
        "gateway.port": str(file),
        "gateway.admin_port": "TASTEMAKER_GATEWAY__ADMIN_PORT",
        "gateway.deadline_ms": "command line",
    }


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    file = settings_file(tmp_path, "catalogue: shop\n")
    assert load_settings(environment={"TASTEMAKER_CONFIG": str(file)}).catalogue == "shop"


def test_a_secret_comes_from_a_mounted_file_and_is_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret-word\n")
    settings = load_settings(environment={"TASTEMAKER_STATE__PASSWORD_FILE": str(secret)})
    assert settings.state.password is not None
    assert settings.state.password.get_secret_value() == "s3cret-word"
    assert "s3cret-word" not in repr(settings) + settings.model_dump_json()


def test_keys_come_from_a_mounted_file_as_a_list(tmp_path: Path) -> None:
    mounted = tmp_path / "keys.yaml"
    mounted.write_text(f"- {{sha256: {'ab' * 32}, scopes: [read, admin]}}\n")
    [key] = load_settings(environment={"TASTEMAKER_GATEWAY__KEYS_FILE": str(mounted)}).gateway.keys
    assert (key.sha256, key.scopes) == ("ab" * 32, ("read", "admin"))
    mounted.write_text("no list")
    with pytest.raises(ConfigError, match=r"gateway\.keys"):
        load_settings(environment={"TASTEMAKER_GATEWAY__KEYS_FILE": str(mounted)})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gatway: {}", ["unknown key gatway", "gateway", "remove or rename"]),
        ("gateway: {prot: 1}", ["unknown key gateway.prot", "admin_port", "port"]),
        ("gateway: {port: '8700'}", ["gateway.port", "'8700'", "integer"]),
        ("gateway: {port: 70000}", ["gateway.port", "70000", "65535"]),
        ("catalogue: Shop", ["catalogue", "Shop", "a-z"]),
        ("gateway: {keys: [{sha256: abc, scopes: [read]}]}", ["gateway.keys.0.sha256", "abc"]),
        ("[1, 2]", ["list", "a mapping"]),
        ("a: [", ["not YAML"]),
    ],
)
def test_a_wrong_file_is_refused_by_name_key_and_value(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"settings\.yaml") as refused:
        load_settings(settings_file(tmp_path, text), environment={})
    for word in words:
        assert word in str(refused.value)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().catalogue = "other"  # type: ignore[misc]


def test_settings_are_hashable_so_that_workers_may_keep_what_was_made_of_them() -> None:
    assert hash(Settings()) == hash(Settings())


def test_limits_read_as_limits() -> None:
    class Limited(Strict):
        names: tuple[str, ...] = Field(("a",), min_length=1)
        code: str = Field("a", pattern="[a-z]")
        even: int = Field(0, multiple_of=2)

    for data, limit in (
        ({"names": []}, "of at least 1 item"),
        ({"code": "9"}, "of pattern"),
        ({"even": 1}, "a multiple of 2"),
    ):
        with pytest.raises(ConfigError, match=f", must be {limit}"):
            Limited.parse(data, "a file")


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_a_mapping_that_is_refused_as_one_value_is_named_with_it(where: str) -> None:
    """Values do not belong together where a model says so, of its own."""

    class Inner(Strict):
        shares: dict[str, float] = Field(default_factory=dict)
        low: int = 0
        high: int = 1

        @field_validator("shares")
        @classmethod
        def _whole(cls, shares: dict[str, float]) -> dict[str, float]:
            if shares and sum(shares.values()) != 1:
                raise ValueError("shares that add up to 1")
            return shares

        @model_validator(mode="after")
        def _ordered(self) -> Self:
            if self.low > self.high:
                raise ValueError(f"low is {self.low}, high is {self.high}")
            return self

    class Outer(Strict):
        inner: Inner | None = None

    def parse(data: dict[str, object]) -> Strict:
        if where == "outside":
            return Inner.parse(data, "a file")
        return Outer.parse({"inner": data}, "a file")

    at = "" if where == "outside" else "inner."
    with pytest.raises(ConfigError) as refused:
        parse({"shares": {"a": 0.5}})
    assert f"a file: {at}shares" in str(refused.value)
    assert "belong together" not in str(refused.value)
    assert refused.value.value == {"a": 0.5}
    with pytest.raises(ConfigError, match=r"belong together: .*low is 3, high is 2"):
        parse({"low": 3, "high": 2})
