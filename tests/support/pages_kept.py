"""Paged lists in memory, in place of the cache: what is kept goes through its bytes."""

from tastemaker.errors import StateError
from tastemaker_services.gateway.pages import PagedList


class KeptPages:
    """A `pages.Pages` that can fail."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, bytes], bytes] = {}
        self.is_down = False

    async def keep(self, user_id: str, paged: PagedList) -> bytes:
        if self.is_down:
            raise StateError("cannot keep a list")
        name = len(self.kept).to_bytes(16)
        self.kept[user_id, name] = paged.encode()
        return name

    async def get(self, user_id: str, name: bytes, now_ms: int) -> PagedList | None:
        del now_ms
        if self.is_down:
            raise StateError("cannot read a list")
        return PagedList.decode(self.kept.get((user_id, name)))
