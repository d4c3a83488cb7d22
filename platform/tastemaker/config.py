"""What there is to set. Where it comes from, `config_sources` says.

Every component's config derives from `Strict`: frozen, unknown keys refused, nothing coerced silently.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from tastemaker.errors import ConfigError, UsageError


class Strict(BaseModel):
    """Base of all configs."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)

    @classmethod
    def parse(cls, data: Mapping[str, Any], origin: str) -> Self:
        """The config that `data` (as read from YAML or JSON) spells out.

        Raises:
            ConfigError: A key is unknown or a value is wrong; names `origin`, key, value, limit and mend.
        """
        try:
            return cls.model_validate_json(json.dumps(data, default=str))
        except ValidationError as error:
            raise _config_error(cls, error, origin) from error


def _config_error(cls: type[BaseModel], error: ValidationError, origin: str) -> ConfigError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "(top level)"
    if first["type"] == "extra_forbidden":
        known = ", ".join(sorted(_fields_at(cls, first["loc"][:-1])))
        return ConfigError(
            f"{origin}: unknown key {key}",
            value=first["input"],
            limit=f"one of: {known}",
            mend="remove or rename it",
        )
    if first["type"] == "missing":
        return ConfigError(f"{origin}: key {key} is missing", mend="add it")
    return ConfigError(f"{origin}: {key}", value=first["input"], limit=first["msg"], mend="correct the value")


def _fields_at(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    model: Any = cls
    union: list[Any] = []
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:  # the tag of one of a union's models
            model = next((kind for kind in union if _has_default(kind, part)), model)
        else:
            kinds = (field.annotation, *get_args(field.annotation))  # of `X | None` it is X's
            union = [kind for kind in kinds if hasattr(kind, "model_fields")]
            model = next(iter(union), model)
    return list(model.model_fields)


def _has_default(model: type[BaseModel], value: int | str) -> bool:
    return any(field.default == value for field in model.model_fields.values())


class StateSettings(Strict):
    """Where everything online lives (Redis protocol)."""

    url: str | None = Field(
        None,
        description="redis:// or rediss:// URL, of a cluster redis+cluster://host:port,…; empty starts the embedded Valkey",
    )
    cache_url: str | None = Field(None, description="URL of the result cache; empty shares `url`")
    password: SecretStr | None = Field(None, description="password of both, where the URL has none")
    partitions: int = Field(
        64, ge=1, le=1024, description="event streams of a catalogue; fixed once it exists"
    )
    history_length: int = Field(50, ge=1, le=1000, description="newest items of a user that serving reads")
    dedup_window_seconds: int = Field(86_400, ge=1, description="how long an event_id is remembered")
    stream_max_length: int = Field(1_000_000, ge=1000, description="cap of each partition stream, in entries")
    ingest: Literal["waitaof", "spool"] = Field(
        "waitaof", description="what 202 waits for: the log's disk (ours while that is away), or always ours"
    )
    spool_bytes: int = Field(
        256 * 2**20, ge=2**16, description="most bytes of events on a gateway's disk; beyond, it refuses"
    )
    consumers: int = Field(1, ge=1, le=64, description="processes that apply events, sharing partitions")
    late_days: int = Field(
        30, ge=1, le=3650, description="events that happened longer before they arrived are only archived"
    )
    trend_window: Literal["1h", "1d", "7d", "30d"] = Field(
        "7d", description="an event counts a third in what trends after that time"
    )


class RegistrySettings(Strict):
    """MLflow."""

    tracking_uri: str | None = Field(
        None, description="MLflow server; empty opens the SQLite store in the home"
    )


class StorageSettings(Strict):
    """Where bundles lie."""

    url: str | None = Field(None, description="fsspec URL of the storage root; empty is the home folder")


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
    """What one gateway's process takes on at once. See `tastemaker_services.shedding`."""

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
    retriever: ReplicaSettings = Field(default_factory=ReplicaSettings, description="proposes candidates")
    ranker: ReplicaSettings = Field(
        default_factory=ReplicaSettings, description="the dearest stage: give it the most processes"
    )
    reranker: ReplicaSettings = Field(default_factory=ReplicaSettings, description="orders the slate")


class TrendingSettings(Strict):
    """How answers use what trends by the events of now."""

    refresh_seconds: float = Field(5.0, gt=0, le=3600, description="how often it is read anew")
    least_weight: float = Field(
        20.0, ge=0, description="decayed weight of all items below which the bundle's own list stands"
    )
    country_prior: float = Field(
        20.0, gt=0, description="weight of events in a country that counts as much as what trends everywhere"
    )


class RaySettings(Strict):
    """The Ray session."""

    address: str | None = Field(None, description="an existing cluster; empty starts one on this machine")
    num_cpus: int | None = Field(
        None, ge=1, description="logical CPUs of a session that we start; empty asks Ray"
    )
    object_store_mb: int = Field(256, ge=80, description="shared memory of a session that we start")
    token_file: Path | None = Field(None, description="the cluster's auth token; empty makes one in the home")


class TrainingSettings(Strict):
    """How ranks are run."""

    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="what ranks compute on: gloo or NCCL between them"
    )
    max_failures: int = Field(3, ge=0, description="lost ranks after which a training is given up")


class CanaryGuardrail(Strict):
    """A metric of experiments that a version's first users must not see worsen."""

    metric: str = Field(description="its name")
    margin: float = Field(
        ge=0, le=1, description="most that it may worsen, as a share of the champion's value"
    )


class CanarySettings(Strict):
    """A version's first users: an experiment against the champion that `tastemaker promote` starts and waits for."""

    steps: tuple[float, ...] = Field(
        (), description="share of users in each step, growing, such as 0.01, 0.05, 0.2; empty: no canary"
    )
    hours: float = Field(1.0, ge=0, description="least time that a step lasts")
    requests: int = Field(500, ge=1, description="fewest requests of the version that a step is judged by")
    window_seconds: float = Field(
        300.0, gt=0, description="how long a click counts for its request; a request is judged after that"
    )
    guardrails: tuple[CanaryGuardrail, ...] = Field(
        (
            CanaryGuardrail(metric="rewarded_requests", margin=0.1),
            CanaryGuardrail(metric="degraded_requests", margin=1.0),
            CanaryGuardrail(metric="latency_ms", margin=0.5),
        ),
        min_length=1,
        description="what must not become worse",
    )

    @field_validator("steps")
    @classmethod
    def _growing(cls, steps: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < step <= 0.5 for step in steps) or list(steps) != sorted(set(steps)):
            raise ValueError(f"shares up to 0.5 that grow; not {list(steps)}")
        return steps


class PromotionSettings(Strict):
    """What a version must pass before an alias may name it. Losses are shares of the champion's value."""

    valid_hours: float = Field(
        24.0, ge=0, description="a gate that passed is not asked again for so long, the same things given"
    )
    metric: str = Field("ndcg@10", description="of the users held out, which versions are compared by")
    users: int = Field(30, ge=2, description="fewest users of a comparison, and of a segment")
    sample_users: int = Field(
        1000, ge=2, description="most users of a comparison that is made where the champion is of other data"
    )
    loss: float = Field(0.01, ge=0, lt=1, description="that all users together may have")
    segment_loss: float = Field(0.1, ge=0, lt=1, description="that any segment of users may have")
    exposure_loss: float = Field(
        0.5, ge=0, lt=1, description="that the exposure of the long tail or a category may have"
    )
    calibration_error: float = Field(
        0.05, gt=0, le=1, description="most expected calibration error of the ranker's probabilities"
    )
    recall: float = Field(
        0.9, gt=0, le=1, description="least recall at 10 of an approximate index; an exact one has 1"
    )
    latency_ms: float | None = Field(
        None, gt=0, description="most that 95 of 100 recorded requests may take; empty: gateway.deadline_ms"
    )
    latency_ratio: float = Field(
        2.0, ge=1, description="most of the champion's time on the same requests, once they take over 10 ms"
    )
    off_policy_loss: float = Field(
        0.05, ge=0, lt=1, description="of what was logged, that the estimate's lower bound may have"
    )
    off_policy_days: float = Field(1.0, gt=0, description="how far back the log is judged from")
    origin: Literal["live", "simulator"] = Field(
        "live", description="whose requests the gates of off-policy, shadow and canary look at"
    )
    shadow_hours: float = Field(24.0, gt=0, description="how far back shadow traffic is looked at")
    shadow_pairs: int = Field(100, ge=1, description="fewest answers that the shadow gate is judged by")
    shadow_failed: float = Field(0.01, ge=0, le=1, description="most of a shadow's answers that failed")
    shadow_overlap: float = Field(
        0.05, ge=0, le=1, description="least share of shown items that the shadow has too"
    )
    canary: CanarySettings = Field(default_factory=CanarySettings, description="a version's first users")


class ExperimentSettings(Strict):
    """How running experiments are watched."""

    guardrail_seconds: float = Field(
        60.0,
        ge=1,
        description="how often guardrails are looked at; rarer where a look takes over a twentieth of that",
    )


class ExporterSettings(Strict):
    """What the parts of a cluster tell Prometheus and Kubernetes, each process or pod for itself."""

    host: str = Field("127.0.0.1", description="address of /metrics, /healthz and /readyz; no keys are asked")
    port: int = Field(8702, ge=0, le=65535, description="their port; 0 takes a free one")


class LoggingSettings(Strict):
    """What the processes that serve write to stderr."""

    format: Literal["text", "json"] = Field("text", description="lines for people, or JSON for collectors")
    level: Literal["debug", "info", "warning", "error"] = Field(
        "warning", description="least that is written"
    )


class TracingSettings(Strict):
    """OpenTelemetry spans of the gateway and the stages."""

    endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^\s@]+$",
        description="where spans go by OTLP over HTTP, such as http://collector:4318/v1/traces; empty: no tracing",
    )
    sample_ratio: float = Field(0.01, ge=0, le=1, description="share of requests that are traced")


class Settings(Strict):
    """All that one deployment is told. The file is YAML of this shape."""

    catalogue: str = Field(
        "default", description="the unit of tenancy: its items, events, models, experiments"
    )
    home: Path = Field(Path(".tastemaker"), validate_default=False, description="folder of the embedded mode")
    state: StateSettings = Field(default_factory=StateSettings, description="Redis/Valkey")
    registry: RegistrySettings = Field(default_factory=RegistrySettings, description="MLflow")
    storage: StorageSettings = Field(default_factory=StorageSettings, description="bundles")
    gateway: GatewaySettings = Field(default_factory=GatewaySettings, description="HTTP")
    cache: CacheSettings = Field(default_factory=CacheSettings, description="result cache")
    serving: ServingSettings = Field(default_factory=ServingSettings, description="the graph")
    trending: TrendingSettings = Field(default_factory=TrendingSettings, description="what trends now")
    ray: RaySettings = Field(default_factory=RaySettings, description="Ray")
    training: TrainingSettings = Field(default_factory=TrainingSettings, description="ranks")
    promotion: PromotionSettings = Field(default_factory=PromotionSettings, description="gates of versions")
    experiments: ExperimentSettings = Field(default_factory=ExperimentSettings, description="A/B tests")
    exporter: ExporterSettings = Field(default_factory=ExporterSettings, description="a cluster's metrics")
    logging: LoggingSettings = Field(default_factory=LoggingSettings, description="lines on stderr")
    tracing: TracingSettings = Field(default_factory=TracingSettings, description="spans of requests")

    @field_validator("catalogue")
    @classmethod
    def _catalogue(cls, name: str) -> str:
        from tastemaker.types import catalogue_name  # late: numpy would double the time of `--help`

        try:
            return catalogue_name(name)
        except UsageError as error:
            raise ValueError(str(error)) from error
