"""What there is to set about answering requests: gateway, stages, caches."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from tastemaker.strict import Strict


class ApiKey(Strict):
    """One key to the HTTP API, stored as its hash."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the key, hexadecimal")
    scopes: tuple[str, ...] = Field(description="of read, ingest, catalogue, erase, explain, admin")

    @field_validator("scopes")
    @classmethod
    def _known(cls, scopes: tuple[str, ...]) -> tuple[str, ...]:
        unknown = set(scopes) - {"read", "ingest", "catalogue", "erase", "explain", "admin"}
        if unknown:
            raise ValueError(
                f"scopes of read, ingest, catalogue, erase, explain, admin; not {sorted(unknown)}"
            )
        return scopes


class BudgetSettings(Strict):
    """A stage's share of the deadline, in milliseconds: what it takes at p99, and 5 for the way to its process and back."""

    history: float = Field(10.0, gt=0, description="reading the user's history and assignment")
    retrieve: float = Field(20.0, gt=0, description="user encoding 5, all sources and their merge 10")
    rank: float = Field(55.0, gt=0, description="hydration 20, ranking 30")
    rerank: float = Field(10.0, gt=0, description="reranking and final filter 5")


class BreakerSettings(Strict):
    """When a part that does not answer is left alone."""

    calls: int = Field(20, ge=1, le=10_000, description="newest calls of a part that are looked at")
    least_calls: int = Field(
        10, ge=1, description="fewer of them say nothing; what a dead part costs, in requests"
    )
    window_seconds: float = Field(10.0, gt=0, description="older calls are forgotten")
    failure_share: float = Field(
        0.5, gt=0, le=1, description="share of them that failed or were late, from which on it is left alone"
    )
    retry_seconds: float = Field(1.0, gt=0, description="between two requests that try it again")

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.least_calls > self.calls:
            raise ValueError(f"least_calls of at most calls, which is {self.calls}")
        return self


class SheddingSettings(Strict):
    """What one gateway's process takes on at once. See `tastemaker_services.gateway.shedding`."""

    max_in_flight: int = Field(
        256, ge=1, le=1000, description="requests under way in all; beyond, 429 with Retry-After"
    )
    first_limit: int = Field(
        64, ge=1, description="requests that use stages at once, as first taken; then what is measured"
    )
    least_limit: int = Field(8, ge=1, description="that many may always: less would leave the stages idle")
    batch_share: float = Field(0.6, gt=0, le=1, description="part of both that priority batch may fill")
    background_share: float = Field(
        0.3, gt=0, le=1, description="part of both that simulated and replayed requests may fill"
    )


class GatewaySettings(Strict):
    """The HTTP face."""

    host: str = Field("127.0.0.1", description="address that /v1 listens on; needs keys unless loopback")
    port: int = Field(8700, ge=0, le=65535, description="port of /v1; 0 takes a free one")
    admin_host: str = Field(
        "127.0.0.1",
        description="address of /docs, /metrics and /admin; needs a key of scope admin unless loopback",
    )
    admin_port: int = Field(
        8701, ge=0, le=65535, description="port of /docs, /metrics and /admin; 0 takes a free one"
    )
    deadline_ms: float = Field(100.0, gt=0, le=60_000, description="time that a request has")
    budget_ms: BudgetSettings = Field(default_factory=BudgetSettings, description="each stage's share")
    breakers: BreakerSettings = Field(
        default_factory=BreakerSettings, description="when a part is left alone"
    )
    shedding: SheddingSettings = Field(
        default_factory=SheddingSettings, description="what is taken on at once"
    )
    drain_seconds: float = Field(
        0.0, ge=0, le=600, description="from /readyz saying no to the listener's end: time for load balancers"
    )
    max_k: int = Field(200, ge=1, le=1000, description="longest list that may be asked for")
    max_batch: int = Field(1000, ge=1, le=10_000, description="most events in one POST")
    features_share: float = Field(
        0.01, ge=0, le=1, description="share of answers whose features the decision log keeps, to check them"
    )
    keys: tuple[ApiKey, ...] = Field((), description="API keys; without any, loopback only")
    cors_origins: tuple[Annotated[str, Field(pattern=r"^https?://[^/*\s]+$")], ...] = Field(
        (),
        description="sites whose pages may call /v1 from a browser, like https://shop.example; give them a key of scope ingest",
    )


class CacheSettings(Strict):
    """Lists that were answered lately."""

    seconds: int = Field(3600, ge=0, description="how long a list may be answered again; 0 switches it off")
    page_seconds: int = Field(
        1800, ge=0, description="how long a paged list can be read on; 0 switches paging off"
    )
    page_items: int = Field(200, ge=1, le=1000, description="most items of a paged list")


class ReplicaSettings(Strict):
    """How many processes of one deployment there are, and what each takes on."""

    replicas: int = Field(1, ge=1, le=1000, description="processes, at least: one does on a laptop")
    max_replicas: int | None = Field(
        None, ge=1, le=1000, description="processes, at most, as the load asks; empty keeps `replicas`"
    )
    target_ongoing_requests: float = Field(
        0.7, gt=0, description="of one process on average; more make it two. A stage works on one message at a time:"
        " its number is the share of time that it is busy, and .7 leaves room for what comes at once"
    )  # fmt: skip
    upscale_delay_seconds: float = Field(
        10.0,
        ge=0,
        description="the load must last so long: a process takes longer to start than a peak to pass",
    )
    downscale_delay_seconds: float = Field(
        300.0, ge=0, description="quiet must last so long: bundles that were loaded are dear"
    )
    max_ongoing_requests: int = Field(
        16,
        ge=1,
        description="messages in one process; each gateway sends one for each, others wait in the gateways",
    )
    max_queued_requests: int = Field(
        64,
        ge=-1,
        description="messages of one gateway that wait for a process; beyond, the next rung answers; -1: any number",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas of at least replicas, which is {self.replicas}")
        return self


class GatewayReplicaSettings(ReplicaSettings):
    """The same of gateways, which answer many requests at once and mostly wait."""

    target_ongoing_requests: float = Field(
        20.0, gt=0, description="requests of one process on average; more make it two"
    )
    max_ongoing_requests: int = Field(
        1000,
        ge=1,
        description="requests in one process; its own bound, gateway.shedding, is below and answers 429",
    )
    max_queued_requests: int = Field(
        -1,
        ge=-1,
        description="requests that wait for a process; -1: any number, so that Serve's own refusal (503) is never met",
    )


class RetrieverSettings(ReplicaSettings):
    """The same of retrievers; of a catalogue in shards, of each shard's."""

    shards: int = Field(
        1,
        ge=1,
        le=64,
        description="parts of the catalogue, each searched by processes of its own that hold no other's vectors; in a spread graph",
    )
    shard_ms: float = Field(
        40.0,
        gt=0,
        le=60_000,
        description="a shard that answers so much later than the first is missing from the answer; a source may take source_ms of it",
    )


class ServingSettings(Strict):
    """How the stages lie in processes."""

    graph: Literal["spread", "fused"] = Field(
        "spread", description="a process for each stage, or all stages in the gateway's own"
    )
    index_device: Literal["cpu", "cuda"] = Field(
        "cpu",
        description="where retrievers search; cuda needs the extra gpu and indexes of kind flat or ivf-flat",
    )
    threads: int = Field(
        1,
        ge=1,
        le=64,
        description="requests that a fused gateway's stages work on at once; with several they share one interpreter, and"
        " each answer waits for the others",
    )
    batch: int = Field(
        16, ge=1, le=256, description="most calls that travel to a stage together; 1 sends each alone"
    )
    source_ms: float = Field(
        30.0,
        gt=0,
        le=60_000,
        description="a source of candidates that takes longer is missing from the answer",
    )
    keep_champion_seconds: float = Field(
        3600.0, ge=0, description="the champion before is held so long: a rollback then loads nothing"
    )
    shadow_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="share of requests that the alias shadow, where it is set, answers as well",
    )
    shadow_in_flight: int = Field(
        1, ge=1, le=64, description="of one gateway's requests, those that the shadow answers at once"
    )
    gateway: GatewayReplicaSettings = Field(
        default_factory=GatewayReplicaSettings,
        description="it answers many at once and mostly waits; its own bound is gateway.shedding, with 429",
    )
    retriever: RetrieverSettings = Field(default_factory=RetrieverSettings, description="proposes candidates")
    ranker: ReplicaSettings = Field(
        default_factory=ReplicaSettings, description="the dearest stage: give it the most processes"
    )
    reranker: ReplicaSettings = Field(default_factory=ReplicaSettings, description="orders the slate")

    @model_validator(mode="after")
    def _shards_have_processes(self) -> Self:
        if self.retriever.shards > 1 and (self.graph, self.index_device) != ("spread", "cpu"):
            raise ValueError("retriever.shards of 1, unless graph is spread and index_device cpu")
        return self


class TrendingSettings(Strict):
    """How answers use what trends by the events of now."""

    refresh_seconds: float = Field(5.0, gt=0, le=3600, description="how often it is read anew")
    least_weight: float = Field(
        20.0, ge=0, description="decayed weight of all items below which the bundle's own list stands"
    )
    country_prior: float = Field(
        20.0, gt=0, description="weight of events in a country that counts as much as what trends everywhere"
    )
