"""What there is to set. Where it comes from, `config_sources` says; what is set of serving and experiments, files of their own."""

from pathlib import Path
from typing import Literal

from pydantic import (
    Field,
    SecretStr,
    field_validator,
)

from tastemaker.config_experiments import ExperimentSettings, PromotionSettings
from tastemaker.config_retention import RetentionSettings
from tastemaker.config_serving import CacheSettings, GatewaySettings, ServingSettings, TrendingSettings
from tastemaker.errors import UsageError
from tastemaker.strict import Strict


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
    retention: RetentionSettings = Field(default_factory=RetentionSettings, description="what `gc` removes")
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
