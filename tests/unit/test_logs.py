"""What our processes write to stderr: format, request id, no secrets."""

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.config import LoggingSettings
from tastemaker.logs import PACKAGES, REQUEST_ID, write_logs
from tastemaker.redaction import without_secrets


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    before = {
        name: (list(logging.getLogger(name).handlers), logging.getLogger(name).level) for name in PACKAGES
    }
    yield
    for name, (handlers, level) in before.items():
        logging.getLogger(name).handlers = handlers
        logging.getLogger(name).setLevel(level)


def test_json_lines_carry_the_request_and_the_fault(capfd: pytest.CaptureFixture[str]) -> None:
    write_logs(LoggingSettings(format="json", level="info"))
    log = logging.getLogger("tastemaker_services.gateway.gateway")

    async def answer(request_id: str) -> None:
        REQUEST_ID.set(request_id)
        await asyncio.sleep(0)  # another request's task runs in between
        log.info("answered")

    async def both() -> None:
        await asyncio.gather(*(asyncio.create_task(answer(name)) for name in ("first", "second")))
        log.info("idle")
        try:
            raise ValueError("no such thing")
        except ValueError:
            log.exception("failed", extra={"request_id": "third"})

    asyncio.run(both())
    first, second, idle, failed = map(json.loads, capfd.readouterr().err.splitlines())
    assert (first["request_id"], second["request_id"], failed["request_id"]) == ("first", "second", "third")
    assert idle.keys() == {"time", "level", "logger", "message"}
    assert (first["level"], first["logger"], first["message"]) == ("info", log.name, "answered")
    assert failed["fault"].endswith("ValueError: no such thing")
    assert first["time"].endswith("+00:00")


def test_text_lines_say_the_same_and_levels_are_kept(capfd: pytest.CaptureFixture[str]) -> None:
    write_logs(LoggingSettings())
    write_logs(LoggingSettings())  # again: no line is written twice
    logging.getLogger("tastemaker.registry").info("not wanted")
    logging.getLogger("tastemaker.registry").warning("an alias moved", extra={"request_id": "ab"})
    [line] = capfd.readouterr().err.splitlines()
    assert line.endswith("WARNING tastemaker.registry [ab]: an alias moved")


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_line_holds_a_secret(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    write_logs(LoggingSettings.parse({"format": form}, "test"))
    log = logging.getLogger("tastemaker.state")
    try:
        raise OSError("cannot reach rediss://app:hunter2@db:6379/0")
    except OSError:
        log.exception("Authorization: Bearer hunter2hunter2; password=hunter2")
    written = capfd.readouterr().err
    assert "hunter2" not in written
    assert "rediss://***@db:6379/0" in written


@given(secret=st.text("abcdefgh0123456789-_.~", min_size=8, max_size=40), around=st.text(max_size=20))
def test_a_known_secret_is_taken_out_wherever_it_stands(secret: str, around: str) -> None:
    assert secret not in without_secrets(f"{around}{secret}{around}", (secret,)).replace(around, "")


@given(st.dictionaries(st.sampled_from(["password", "token", "api_key", "kind"]), st.text(), max_size=4))
def test_json_stays_json(fields: dict[str, str]) -> None:
    shown = json.loads(without_secrets(json.dumps(fields)))
    assert shown.keys() == fields.keys()
    assert all(value == "***" for name, value in shown.items() if name != "kind")


def test_a_request_can_be_followed_by_its_id_and_is_not_told_whole(
    capfd: pytest.CaptureFixture[str],
) -> None:
    from gateway_world import World

    write_logs(LoggingSettings(format="json", level="debug"))
    world = World()
    world.histories["somebody-in-particular"] = ["i0", "i1"]
    answer = world.recommend(user_id="somebody-in-particular", session=["i3"])
    lines = capfd.readouterr().err.splitlines()
    of_request = [json.loads(line) for line in lines if answer["request_id"] in line]
    assert [line["message"].split(" ms")[1] for line in of_request] == [", rungs: []"]
    assert not any("somebody-in-particular" in line or '"i3"' in line for line in lines)
