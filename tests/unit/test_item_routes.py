"""`PUT` and `DELETE /v1/items`: each row for itself, every refusal with its reason, and who may."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.config_serving import ApiKey, GatewaySettings
from tastemaker.data.item_rows import MAX_DIM, MAX_ROW_BYTES, Item, parse_items, table_of
from tastemaker.errors import StateError
from tastemaker.state.items import Written
from tastemaker_services.admin.listener import gateway_openapi
from tastemaker_services.routes.api import create_api

KEYS = tuple(
    ApiKey(sha256=hashlib.sha256(name.encode()).hexdigest(), scopes=(name,)) for name in ("catalogue", "read")
)
GOOD = {
    "item_id": "a", "title": "A", "description": "long", "category": "c", "tags": ["x", "y"], "price": 3,
    "created_at_ms": 5, "regions": ["de", "FR"], "maturity": 16, "franchise": "f",
    "location": {"lat": 52.5, "lon": 13.4}, "vectors": {"image": [1, 2.5]},
}  # fmt: skip


class Kept:
    """A backend that keeps rows in a dict and has room for three."""

    def __init__(self) -> None:
        self.rows: dict[str, str | None] = {}
        self.broken = False
        self.imported = {"a/b", "imported"}

    async def write_items(self, rows: Mapping[str, str | None]) -> Written:
        if self.broken:
            raise StateError("cannot write items", mend="check that Redis/Valkey is up")
        changed: list[bool | None] = []
        never_put = sum(row is None and item_id not in self.rows for item_id, row in rows.items())
        for item_id, row in rows.items():
            if item_id not in self.rows and row is not None and len(self.rows) == 3:
                changed.append(None)
                continue
            changed.append(self.rows.get(item_id, 0) != row)
            self.rows[item_id] = row
        return Written(changed, never_put)

    def serves_item(self, item_id: str) -> bool:
        return item_id in self.imported


def call(method: str, path: str, backend: Kept, key: str | None = None, **request: Any) -> httpx.Response:
    keys = KEYS if key is not None else ()
    api = create_api(backend, GatewaySettings(max_batch=5, keys=keys), "default")  # type: ignore[arg-type]
    headers = {"authorization": f"Bearer {key}"} | request.pop("headers", {})

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(api)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.request(method, path, headers=headers, **request)

    return asyncio.run(send())


def put(rows: Any, backend: Kept | None = None, **more: Any) -> httpx.Response:
    return call("PUT", "/v1/items", backend or Kept(), json={"items": rows}, **more)


def test_an_item_is_kept_as_it_was_given() -> None:
    backend = Kept()
    assert put([GOOD], backend).json() == {"accepted": 1, "unchanged": 0, "rejected": 0, "rejections": []}
    assert put([GOOD], backend).json()["unchanged"] == 1
    assert table_of(backend.rows).to_pylist() == [
        {
            "item_id": "a", "title": "A", "category": "c", "tags": ["x", "y"], "created_at_ms": 5,
            "description": "long", "price": 3.0, "regions": ["DE", "FR"], "maturity": 16, "franchise": "f",
            "latitude": 52.5, "longitude": 13.4, "propensity": None, "vectors": [("image", [1.0, 2.5])],
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (7, "the row is a int, must be an object"),
        ({}, "item_id is missing"),
        ({"item_id": ""}, "item_id is empty"),
        ({"item_id": "i" * 257}, "item_id has 257 characters, at most 256"),
        ({"item_id": "a\u0000b"}, "item_id is 'a.x00b', must be without control characters".replace(".", "\\")),
        ({"item_id": 5}, "item_id is 5: "),
        ({"item_id": "b", "colour": "red"}, "colour is no field of an item"),
        ({"item_id": "b", "price": -1}, "price is -1: "),
        ({"item_id": "b", "price": "3"}, "price is '3': "),
        ({"item_id": "b", "maturity": 100}, "maturity is 100: "),
        ({"item_id": "b", "regions": ["Germany"]}, "regions.0 is 'Germany': "),
        ({"item_id": "b", "tags": [""]}, "tags.0 is empty"),
        ({"item_id": "b", "tags": ["t"] * 301}, "tags is "),
        ({"item_id": "b", "location": {"lat": 91, "lon": 0}}, "location.lat is 91: "),
        ({"item_id": "b", "location": {"lat": 1}}, "location.lon is missing"),
        ({"item_id": "b", "vectors": {"image": []}}, "vectors.image is []: "),
        ({"item_id": "b", "vectors": {"image": [0] * (MAX_DIM + 1)}}, "vectors.image is "),
        ({"item_id": "b", "vectors": {str(n): [1] for n in range(9)}}, "vectors is "),
        ({"item_id": "b", "created_at_ms": 10**15}, "created_at_ms is "),
        ({"item_id": "b", "description": "d" * 20_001}, "description has 20001 characters"),
        ({"item_id": "b", "vectors": {str(n): [0.123456789] * 4096 for n in range(8)}}, "the item takes "),
        ({"item_id": "a"}, "item_id stands already at row 0 of this batch"),
    ],
)  # fmt: skip
def test_a_bad_row_says_why_and_rejects_no_neighbour(row: Any, reason: str) -> None:
    backend = Kept()
    answer = put([GOOD, row, {"item_id": "z"}], backend).json()
    assert (answer["accepted"], answer["rejected"]) == (2, 1)
    (rejection,) = answer["rejections"]
    assert rejection["position"] == 1
    assert rejection["reason"].startswith(reason)
    assert len(rejection["reason"]) < 400
    assert backend.rows.keys() == {"a", "z"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"items": [{"item_id": "a"}, {"item_id": "b", "price": NaN}]}', "price is nan"),
        (b'{"items": [{"item_id": "a"}, {"item_id": "b", "price": 1e999}]}', "price is inf"),
        (b'{"items": [{"item_id": "a"}, {"item_id": "b", "item_id": "c"}]}', "the row is an object with"),
        (b'{"items": [{"item_id": "a"}, {"item_id": "\\ud800"}]}', "item_id is"),
    ],
)
def test_what_json_should_not_hold_stays_with_its_row(body: bytes, reason: str) -> None:
    headers = {"content-type": "application/json"}
    answer = call("PUT", "/v1/items", Kept(), content=body, headers=headers).json()
    assert (answer["accepted"], answer["rejections"][0]["position"]) == (1, 1)
    assert answer["rejections"][0]["reason"].startswith(reason)


@pytest.mark.parametrize(
    ("rows", "status"), [([], 422), ("a", 422), ([{"item_id": str(n)} for n in range(6)], 422)]
)
def test_what_is_no_batch_is_refused(rows: Any, status: int) -> None:
    answer = put(rows)
    assert answer.status_code == status
    assert answer.json()["field"] == "items"


def test_a_full_catalogue_says_so() -> None:
    answer = put([{"item_id": name} for name in "abcd"]).json()
    assert (answer["accepted"], answer["rejections"][0]["position"]) == (3, 3)
    assert "import them instead" in answer["rejections"][0]["reason"]


@pytest.mark.parametrize("path", ["/v1/items/a/b", "/v1/items?item_id=a/b"])
def test_deleting_is_idempotent(path: str) -> None:
    backend = Kept()
    put([{"item_id": "a/b"}], backend)
    assert call("DELETE", path, backend).json() == {"deleted": 1}
    assert call("DELETE", path, backend).json() == {"deleted": 0}
    assert backend.rows == {"a/b": None}


def test_what_nobody_knows_is_not_counted_as_deleted_but_noted() -> None:
    backend = Kept()
    assert call("DELETE", "/v1/items/imported", backend).json() == {"deleted": 1}
    assert call("DELETE", "/v1/items/unheard-of", backend).json() == {"deleted": 0}
    assert backend.rows == {"imported": None, "unheard-of": None}


def test_only_the_scope_catalogue_may_write() -> None:
    for method, path, body in (("PUT", "/v1/items", {"items": [GOOD]}), ("DELETE", "/v1/items/a", None)):
        backend = Kept()
        assert call(method, path, backend, "unknown", json=body).status_code == 401
        assert call(method, path, backend, "read", json=body).status_code == 403
        assert not backend.rows
        assert call(method, path, backend, "catalogue", json=body).status_code == 200


def test_a_lost_server_is_a_503_that_says_when_to_try_again() -> None:
    backend = Kept()
    backend.broken = True
    for answer in (put([GOOD], backend), call("DELETE", "/v1/items/a", backend)):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)
ids = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=8)
items = st.builds(
    Item,
    item_id=ids,
    title=st.none() | words,
    category=st.none() | words,
    tags=st.lists(words, max_size=3),
    price=st.none() | st.floats(0, 1e9),
    created_at_ms=st.none() | st.integers(-(10**13), 10**13),
    maturity=st.none() | st.integers(0, 99),
    vectors=st.dictionaries(words, st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=3), max_size=2),
)


@given(items)
def test_what_is_kept_gives_the_item_back(item: Item) -> None:
    again, rejected = parse_items([json.loads(item.encode())])
    assert not rejected
    assert again[0] == item
    assert len(item.encode().encode()) <= MAX_ROW_BYTES
    (row,) = table_of([(item.item_id, item.encode())]).to_pylist()
    assert row["title"] == (item.title or item.item_id)
    assert (row["tags"], row["price"], row["maturity"]) == (item.tags, item.price, item.maturity)
    assert dict(row["vectors"] or ()) == item.vectors


def test_openapi_spells_an_item_out() -> None:
    put_route = gateway_openapi(GatewaySettings())["paths"]["/v1/items"]["put"]
    body = put_route["requestBody"]["content"]["application/json"]["schema"]
    fields = body["properties"]["items"]["items"]["properties"]
    assert fields.keys() == Item.model_fields.keys()
    assert fields["location"]["anyOf"][0]["properties"].keys() == {"lat", "lon"}
    assert "$ref" not in json.dumps(body)
