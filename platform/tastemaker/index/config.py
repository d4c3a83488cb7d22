"""What an index is, how hard it searches, and what was measured of it. Not for building one."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from tastemaker.errors import ConfigError
from tastemaker.strict import Strict

IndexKind = Literal["auto", "flat", "hnsw", "ivf-flat", "ivf-pq"]
"""`auto` is one of the others, by the number of items."""
QueryKind = Literal["users", "perturbed-items", "random"]
"""What was searched for: vectors of the catalogue's users, the items' own with noise added, or noise alone (benchmarks)."""

RECALL_AT = 100
"""Results a query, where recall is measured and unset efforts are fitted."""
DEFAULT_LINKS = 32
DEFAULT_BUILD_BEAM = 80
DEFAULT_BEAM = 200
DEFAULT_REFINE = 4.0
MAX_NLIST = 65_536
ITEMS_PER_LIST = 39
"""Fewest items a list that k-means is trained on, on average [FAISS]."""
FEWEST_CODED = 16
"""Items that ivf-pq needs: a code has so many values."""


class IndexConfig(Strict):
    """How vectors are searched. What is unset is chosen when the index is built."""

    kind: IndexKind = Field("auto", description="auto, flat (exact), hnsw, ivf-flat, or ivf-pq (refined)")
    exact_up_to: int = Field(50_000, ge=0, description="items up to which `auto` is flat")
    recall: float = Field(0.95, gt=0, le=1, description="recall@100 that unset efforts are fitted to")
    nlist: int | None = Field(None, ge=1, le=MAX_NLIST, description="lists of the IVF kinds")
    nprobe: int | None = Field(None, ge=1, le=MAX_NLIST, description="effort: lists that a search reads")
    codes: int | None = Field(
        None, ge=1, description="4-bit codes of a vector in ivf-pq, a divisor of its length"
    )
    refine: float | None = Field(
        None,
        ge=1,
        le=1000,
        description="effort of ivf-pq: times k candidates, of k 100 at least, that are scored exactly",
    )
    links: int | None = Field(None, ge=4, le=128, description="links of an item in an hnsw's graph")
    build_beam: int | None = Field(None, ge=8, le=4096, description="width of the search while linking")
    beam: int | None = Field(None, ge=1, le=65_536, description="effort of hnsw: width of a search")

    @model_validator(mode="after")
    def _probes_lists_that_are_there(self) -> Self:
        if self.nlist and self.nprobe and self.nprobe > self.nlist:
            raise ValueError("nprobe of at most nlist")
        return self

    @property
    def is_fitted(self) -> bool:
        """Whether every effort of its kind is set."""
        efforts = {"hnsw": (self.beam,), "ivf-flat": (self.nprobe,), "ivf-pq": (self.nprobe, self.refine)}
        return None not in efforts.get(self.kind, ())

    def shaped(self, num_items: int, dim: int) -> "IndexConfig":
        """The same with kind and structure chosen for a catalogue; what its kind does not read is unset.

        Raises:
            ConfigError: The codes do not divide the length of a vector, or there are more lists than items.

        >>> IndexConfig().shaped(9_000, 64).kind
        'flat'
        >>> large = IndexConfig().shaped(1_000_000, 64)
        >>> large.kind, large.nlist, large.codes, large.nprobe
        ('ivf-pq', 1024, 32, None)
        """
        kind = self.kind
        if kind == "auto":
            kind = "flat" if num_items <= self.exact_up_to else "ivf-pq" if _can_code(dim) else "ivf-flat"
        found = IndexConfig(kind=kind, exact_up_to=self.exact_up_to, recall=self.recall)
        if kind == "hnsw":
            links, build_beam = self.links or DEFAULT_LINKS, self.build_beam or DEFAULT_BUILD_BEAM
            return found.model_copy(update={"links": links, "build_beam": build_beam, "beam": self.beam})
        if kind == "flat":
            return found
        nlist = self.nlist or default_nlist(num_items)
        if nlist > num_items:
            raise ConfigError("index.nlist", value=nlist, limit=f"at most the {num_items} items")
        if self.nprobe and self.nprobe > nlist:
            raise ConfigError("index.nprobe", value=self.nprobe, limit=f"at most the {nlist} lists")
        found = found.model_copy(update={"nlist": nlist, "nprobe": self.nprobe})
        if kind == "ivf-flat":
            return found
        if num_items < FEWEST_CODED:
            raise ConfigError(
                "items of an index of kind ivf-pq",
                value=num_items,
                limit=f"at least {FEWEST_CODED}",
                mend="leave index.kind at auto",
            )
        codes = self.codes or default_codes(dim)
        if dim % codes:
            raise ConfigError("index.codes", value=codes, limit=f"a divisor of {dim}, the vectors' length")
        return found.model_copy(update={"codes": codes, "refine": self.refine})


def default_nlist(num_items: int) -> int:
    """The power of two near the square root, of which each list has items to learn from.

    >>> [default_nlist(num) for num in (1, 1_000, 100_000, 1_000_000, 10_000_000)]
    [1, 16, 256, 1024, 4096]
    """
    most = max(num_items // ITEMS_PER_LIST, 1)
    near = 2 ** round(math.log2(num_items) / 2)
    return int(min(near, 2 ** int(math.log2(most)), MAX_NLIST))


def default_codes(dim: int) -> int:
    """The largest divisor of `dim` that leaves a code two numbers or more; 1 where there is none.

    >>> default_codes(64), default_codes(50), default_codes(7)
    (32, 25, 1)
    """
    return max((codes for codes in range(1, dim // 2 + 1) if dim % codes == 0), default=1)


def _can_code(dim: int) -> bool:
    return default_codes(dim) >= dim / 4


class MeasuredIndex(Strict):
    """What a search costs and finds, one thread, one query at a time."""

    queries: QueryKind = Field(description="what was searched for")
    num_queries: int = Field(ge=1, description="how many")
    k: int = Field(ge=1, description="results of each")
    recall: float = Field(ge=0, le=1, description="share of results as good as the true k-th best")
    p50_ms: float = Field(ge=0, description="median time of a search, of its thread's CPU")
    p99_ms: float = Field(ge=0, description="time of its thread's CPU that 1 of 100 searches is above")
    wall_p99_ms: float = Field(ge=0, description="the same by the clock: more, where the machine was busy")
    build_seconds: float = Field(ge=0, description="time to build it")
    memory_bytes: int = Field(ge=0, description="what it holds, all vectors among it")
