"""`/admin/v1/promotions`, `/history` and `/rollback`, on a real MLflow store."""

import asyncio
import hashlib
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI

from tastemaker.bundle.manifest import BundleRef
from tastemaker.config import Settings
from tastemaker.config_serving import ApiKey
from tastemaker.promotion.gate import GateResult
from tastemaker.promotion.record import Promotion, save_gate, save_state
from tastemaker.registry.client import Registry
from tastemaker_services.admin.promotions import HISTORY, PROMOTIONS, ROLLBACK, PromotionsAdmin
from tastemaker_services.web.access import Access

# SQLAlchemy 2.1 warns about a loading strategy that MLflow 3.17 uses.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

KEY, READER = "k" * 40, "r" * 40
KEYS = tuple(
    ApiKey(sha256=hashlib.sha256(key.encode()).hexdigest(), scopes=(scope,))
    for key, scope in ((KEY, "admin"), (READER, "read"))
)


class World:
    def __init__(self, registry, catalogue):
        self.registry, self.catalogue, self.moved = registry, catalogue, []
        for n in (1, 2):
            sha256 = f"{n:064x}"
            registry.publish(catalogue, BundleRef(f"manifests/default/{sha256[:12]}.json", sha256), {})

    def call(self, *calls, key=KEY):
        """The answers to (method, path, JSON body or None) in turn."""
        app = FastAPI()
        PromotionsAdmin(self.registry, self.catalogue, Access(KEYS), lambda: self.moved.append(1)).add_to(app)

        async def run():
            transport = httpx.ASGITransport(app)
            headers = {"authorization": f"Bearer {key}"}
            async with httpx.AsyncClient(
                transport=transport, base_url="http://admin", headers=headers
            ) as http:
                return [
                    await http.request(method, path, **({} if body is None else {"json": body}))
                    for method, path, body in calls
                ]

        return asyncio.run(run())


@pytest.fixture(scope="module")
def registry(tmp_path_factory, make_home):
    return Registry(Settings(), make_home(tmp_path_factory.mktemp("h") / "home"))


@pytest.fixture
def world(registry, request):
    return World(registry, f"a-{abs(hash(request.node.name)) % 10**8}")


def test_a_version_tells_what_its_gates_said(world):
    gate = GateResult(name="index", outcome="passed", value=1.0, limit=1.0, reason="flat", at_ms=5)
    save_gate(world.registry, world.catalogue, 2, gate)
    promotion = Promotion(
        catalogue=world.catalogue, version=2, alias="champion", bundle="b", state="promoted", gates=(gate,)
    )
    save_state(world.registry, promotion)
    found, none, missing, odd = world.call(
        ("GET", f"{PROMOTIONS}/2", None), ("GET", f"{PROMOTIONS}/1", None), ("GET", f"{PROMOTIONS}/9", None),
        ("GET", f"{PROMOTIONS}/first", None),
    )  # fmt: skip
    assert found.json() == {"version": 2, "promotions": [promotion.model_dump(mode="json")]}
    assert none.json() == {"version": 1, "promotions": []}
    assert (missing.status_code, missing.json()["type"]) == (404, "urn:tastemaker:problem:unknown-version")
    assert (odd.status_code, odd.json()["field"]) == (422, "version")


def test_a_rollback_moves_the_alias_tells_who_serves_and_stands_in_the_history(world):
    first = world.registry.set_alias(world.catalogue, "champion", 1, "ann", "first")
    world.registry.set_alias(world.catalogue, "champion", 2, "ann", "better")
    back, history, shadow, at, again = world.call(
        ("POST", ROLLBACK, {"actor": "bob", "reason": "too slow"}),
        ("GET", HISTORY, None),
        ("GET", f"{HISTORY}?alias=shadow", None),
        ("GET", f"{HISTORY}?at={quote('1970-01-01T00:00+00:00')}", None),
        ("POST", ROLLBACK, {}),
    )
    assert (back.status_code, back.json()) == (200, {"alias": "champion", "version": 1})
    assert world.moved == [1]
    moves = history.json()["moves"]
    assert [(m["version"], m["kind"]) for m in moves] == [(1, "set"), (2, "set"), (1, "rollback")]
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    assert moves[-1]["reason"] == "too slow"
    assert moves[-1]["actor"] == f"bob (key {digest[:8]})"
    assert (shadow.json(), at.json()) == ({"moves": []}, {"moves": []})
    assert (again.status_code, again.json()["detail"][:25]) == (409, "alias champion of catalog")
    assert world.registry.live_at(world.catalogue, "champion", first.timestamp_ms).version == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("GET", f"{HISTORY}?at=yesterday", None, "at"),
        ("POST", ROLLBACK, {"alias": 5}, "alias"),
        ("POST", ROLLBACK, {"aliases": "champion"}, "aliases"),
    ],
)
def test_what_was_misspelled_is_named(world, method, path, body, field):
    [answer] = world.call((method, path, body))
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_only_the_scope_admin_may(world):
    calls = [("GET", f"{PROMOTIONS}/1", None), ("GET", HISTORY, None), ("POST", ROLLBACK, {})]
    assert [answer.status_code for answer in world.call(*calls, key=READER)] == [403, 403, 403]
    assert [answer.status_code for answer in world.call(*calls, key="x" * 40)] == [401, 401, 401]
