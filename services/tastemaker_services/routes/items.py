"""The HTTP routes by which a catalogue changes while it serves: putting items, and taking them out."""

from collections.abc import Mapping
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field

from tastemaker import telemetry
from tastemaker.config_serving import GatewaySettings
from tastemaker.data.item_rows import Item, parse_items
from tastemaker.errors import StateError
from tastemaker.ids import Id
from tastemaker.state.items import MOST_ITEMS, Written
from tastemaker.strict import Strict
from tastemaker_services.web.bodies import mapping, query, read_body, validate
from tastemaker_services.web.openapi import body_schema, query_schema
from tastemaker_services.web.problems import Problem, invalid
from tastemaker_services.web.routing import Routes


class ItemsRequest(Strict):
    """Body of `PUT /v1/items`. Rows are checked one by one: a bad one does not stop the others."""

    items: list[Any] = Field(min_length=1, description="items, each an object that replaces an earlier one")


class ItemsBody(Strict):
    """The same with its rows spelled out, for the OpenAPI page."""

    items: list[Item] = Field(min_length=1, description="items, each an object that replaces an earlier one")


class DeleteRequest(Strict):
    """Parameters of `DELETE /v1/items`."""

    item_id: Id = Field(description="the customer's own id")


class ItemRejection(BaseModel):
    """A row that is no item."""

    position: int = Field(description="in the batch, from 0")
    item_id: str | None
    reason: str


class ItemsResponse(BaseModel):
    """What became of a batch. What was taken is on disk, and recommended within seconds."""

    accepted: int = Field(description="new items and changed ones")
    unchanged: int = Field(description="items that were exactly so already")
    rejected: int
    rejections: list[ItemRejection]


class DeletedResponse(BaseModel):
    """What became of a deletion."""

    deleted: int = Field(
        description="0 where the item was deleted already, or is in no list: noted all the same, should a bundle bring it"
    )


class ItemsBackend(Protocol):
    """What answers behind the routes."""

    async def write_items(self, rows: Mapping[str, str | None]) -> Written:
        """See `state.items.write_items`. StateError where that fails."""
        ...

    def serves_item(self, item_id: str) -> bool:
        """Whether an item is in a catalogue that is answered from."""
        ...


class ItemRoutes(Routes):
    """The routes under `/v1/items` that change the catalogue."""

    def __init__(self, backend: ItemsBackend, settings: GatewaySettings, catalogue: str) -> None:
        super().__init__(settings, catalogue)
        self._backend = backend

    def add_to(self, api: FastAPI) -> None:
        """Adds the routes to an application."""
        api.put("/v1/items", response_model=ItemsResponse, openapi_extra=body_schema(ItemsBody))(self.put)
        by_query = query_schema("item_id")
        api.delete("/v1/items", response_model=DeletedResponse, openapi_extra=by_query)(self.delete_by_query)
        api.delete("/v1/items/{item_id:path}", response_model=DeletedResponse)(self.delete_by_path)

    async def put(self, request: Request) -> Response:
        """Puts a batch of items, new ones and anew; 200 once they are on disk."""
        return await self.answer("items", self._put(request))

    async def delete_by_query(self, request: Request) -> Response:
        """Takes an item out of all answers: `?item_id=`."""
        return await self.answer("items", self._delete(request, {}))

    async def delete_by_path(self, request: Request, item_id: str) -> Response:
        """The same by path, for ids that a path can carry."""
        return await self.answer("items", self._delete(request, {"item_id": item_id}))

    async def _put(self, request: Request) -> dict[str, Any]:
        self.access.scopes(request.headers.get("authorization"), "catalogue")
        rows = validate(ItemsRequest, mapping(await read_body(request))).items
        limit = self.settings.max_batch
        if len(rows) > limit:
            raise invalid("items", f"items has {len(rows)} rows, must be at most {limit}: split the batch")
        items, rejected = parse_items(rows)
        written = await self._write({item.item_id: item.encode() for item in items.values()})
        rejections = [row._asdict() for row in rejected]
        for (position, item), changed in zip(items.items(), written.changed, strict=True):
            if changed is None:
                reason = f"the catalogue has {MOST_ITEMS} put items, which is the most: import them instead"
                rejections.append({"position": position, "item_id": item.item_id, "reason": reason})
        accepted, unchanged = written.changed.count(True), written.changed.count(False)
        self._count(accepted=accepted, unchanged=unchanged, rejected=len(rejections))
        return {
            "accepted": accepted,
            "unchanged": unchanged,
            "rejected": len(rejections),
            "rejections": sorted(rejections, key=lambda rejection: rejection["position"]),
        }

    async def _delete(self, request: Request, path: dict[str, Any]) -> dict[str, Any]:
        self.access.scopes(request.headers.get("authorization"), "catalogue")
        asked = validate(DeleteRequest, query(request) | path)
        written = await self._write({asked.item_id: None})
        deleted = written.changed.count(True)
        if written.num_never_put and not self._backend.serves_item(asked.item_id):
            deleted = 0
        self._count(deleted=deleted)
        return {"deleted": deleted}

    async def _write(self, rows: Mapping[str, str | None]) -> Written:
        if not rows:
            return Written([])
        try:
            return await self._backend.write_items(rows)
        except StateError as error:
            raise Problem(503, "not-accepted", str(error), headers={"retry-after": "1"}) from error

    def _count(self, **outcomes: int) -> None:
        for outcome, number in outcomes.items():
            telemetry.CATALOGUE_ITEMS.labels(self.catalogue, outcome).inc(number)
