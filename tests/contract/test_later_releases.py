"""What the release after this one may have left when a rollback brings this one back: added keys do not stop whoever reads it.

And what this one leaves for the release before it, which refuses keys that it does not know in a bundle.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from experiment_log import decision
from pydantic import ValidationError

from tastemaker.bundle.manifest import BundleInfo, DatasetInfo, FileInfo, TimeRange
from tastemaker.bundle.manifest import Manifest as BundleManifest
from tastemaker.errors import CompatibilityError, DataError
from tastemaker.events.manifest import Manifest, MergedFile, read_manifest, write_manifest
from tastemaker.events.schema import Event, GivenEvent
from tastemaker.experiments.allocation import LinThompson, LinUcb
from tastemaker.experiments.decision_log import decode_decision, encode_decision
from tastemaker.experiments.history import Change
from tastemaker.features.content.config import ContentConfig
from tastemaker.features.user_state import UserState
from tastemaker.models import zoo
from tastemaker.promotion.gate import GateResult
from tastemaker.promotion.record import Promotion
from tastemaker.registry.live import LiveAliases, LiveVersion
from tastemaker.registry.reports import Report
from tastemaker.stages.pipeline_config import PipelineConfig
from tastemaker.strict import Strict


class Format(NamedTuple):
    """Something that one process keeps as JSON and another reads."""

    value: Any
    encode: Callable[[Any], str]
    decode: Callable[[str], Any]


def of_model(value: Any) -> Format:
    return Format(value, lambda one: one.model_dump_json(), type(value).model_validate_json)


CHAMPION = LiveVersion(version=3, uri="manifests/shop/0123456789ab.json", sha256="0" * 64)
BUNDLE = BundleManifest(
    dataset=DatasetInfo(fingerprint="f", retrievers=TimeRange(start_ms=1, end_ms=2)), recipe="movielens", training_id="t",
    schema_version=1, catalogue="shop", created="2026-01-01T00:00:00+00:00",
    files={"items.parquet": FileInfo(sha256="1" * 64, size=7, num_rows=2)},
)  # fmt: skip
MERGED = MergedFile(sha256="2" * 64, rows=1, min_received_ms=3, max_received_ms=4)
FORMATS = {
    "live aliases": of_model(LiveAliases(generation=2, aliases={"champion": CHAMPION}, previous=CHAMPION)),
    "what a process reports": Format(
        Report(2, ("0" * 64,), 5, {"retriever": "too slow"}, {"champion": 3}), Report.encode, Report.decode
    ),
    "manifest of a bundle": Format(
        BUNDLE, lambda one: one.to_bytes().decode(), lambda text: BundleManifest.from_bytes(text.encode(), "m")
    ),
    "manifest of the archive": of_model(Manifest(files={"day=2026-01-01/a.parquet": MERGED}, merged=("b",))),
    "event of the log": of_model(
        Event(event_id="e", user_id="u", item_id="i", kind="click", timestamp_ms=1, context={"device": "tv"})
    ),
    "decision of the log": Format(
        decode_decision(decision("d", "u", "a", 1).json), encode_decision, decode_decision
    ),
    "promotion": of_model(
        Promotion(catalogue="shop", version=3, alias="champion", bundle="0" * 64, gates=(GateResult(name="g", outcome="passed"),))
    ),
    "change of an experiment": of_model(
        Change(version=1, at_ms=1, actor="ann", action="create", reason="r", changes={"traffic": [None, 1.0]})
    ),
}  # fmt: skip
MAPS = frozenset(
    {
        "aliases",
        "answers",
        "changes",
        "context",
        "feature_schema",
        "files",
        "metrics",
        "numbers",
        "refused",
        "timings_ms",
    }
)
"""Keys whose values are maps by name or id: what is added there is content."""
each = pytest.mark.parametrize("name", FORMATS)


def enlarged(value: Any, is_map: bool = False) -> Any:
    """A JSON value in which every object has a key more, but for maps by name."""
    if isinstance(value, dict):
        inner = {key: enlarged(one, key in MAPS) for key, one in value.items()}
        return inner if is_map else inner | {"of_a_later_release": {"deep": [1]}}
    return [enlarged(one) for one in value] if isinstance(value, list) else value


@each
def test_what_is_written_is_read(name: str) -> None:
    value, encode, decode = FORMATS[name]
    assert decode(encode(value)) == value


@each
def test_keys_of_a_later_release_are_ignored(name: str) -> None:
    value, encode, decode = FORMATS[name]
    text = json.dumps(enlarged(json.loads(encode(value))))
    assert "of_a_later_release" in text
    assert decode(text) == value


def test_clients_may_not_add_keys_to_events() -> None:
    row = json.loads(FORMATS["event of the log"].value.model_dump_json())
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        GivenEvent.model_validate(row | {"colour": "red"})


def test_a_later_schema_is_refused_where_added_keys_would_not_do(tmp_path: Path) -> None:
    later = json.loads(BUNDLE.to_bytes()) | {"schema_version": 2}
    with pytest.raises(CompatibilityError, match="upgrade tastemaker"):
        BundleManifest.from_bytes(json.dumps(later).encode(), "m")
    write_manifest(tmp_path, Manifest(schema_version=2))
    with pytest.raises(DataError, match="upgrade tastemaker"):
        read_manifest(tmp_path)
    record = UserState().encode()
    with pytest.raises(CompatibilityError, match="must be schema 1 or 2"):
        UserState.decode(record[:1] + b"\x03" + record[2:])


def test_what_releases_a_bundle_is_read_too() -> None:
    info = BundleInfo(dataset=DatasetInfo(fingerprint="f"), recipe="r", training_id="t")
    assert BundleInfo.model_validate_json(json.dumps(enlarged(json.loads(info.model_dump_json())))) == info


FIT = (
    "fit.batch_size fit.clip_norm fit.device fit.epochs fit.learning_rate fit.patience fit.precision fit.validate_every "
    "fit.validation_users fit.warmup_steps fit.weight_decay loss.calibration loss.kind loss.num_negatives loss.shared"
)
SEQUENCE = f"{FIT} dim dropout hidden max_length seed stretches"
KNOWN_BEFORE = {
    "ease": "half_life keep l2",
    "ials": "block dim frequency_power iterations regularization scale seed unobserved_weight",
    "bpr": "batch_size dim epochs learning_rate regularization seed",
    "sasrec": f"{SEQUENCE} num_blocks num_heads",
    "gru4rec": f"{SEQUENCE} num_layers",
    "bert4rec": f"{SEQUENCE} num_blocks num_heads hidden_share newest_share",
    "content.json": "dim encoder metadata_dim metadata_weight text_weight vectors",
    "pipeline.json": "hydration.half_life hydration.max_history hydration.recent hydration.request_features "
    "ranking.half_life ranking.recent ranking.score_weights.click",
}
"""Keys, of the sections that have grown, that the release before this one reads."""
PIPELINE: dict[str, Any] = {"retrieval": {"sources": [{"name": "popular", "quota": 5}]}}
CHANGED: dict[str, dict[str, Any]] = {
    "ease": {"propensity": {"power": 0.5}},
    "ials": {"propensity": {"power": 0.5}},
    "bpr": {"propensity": {"power": 0.5}},
    "sasrec": {"places": "from_oldest"},
    "bert4rec": {"places": "from_oldest"},
    "gru4rec": {"fit": {"decay": "linear"}},
    "content.json": {"projection": "contrastive", "contrastive": {"dim": 32}},
    "pipeline.json": PIPELINE | {"ranking": {"item_ids": True}},
}


def config_of(name: str) -> type[Strict]:
    files: dict[str, type[Strict]] = {"content.json": ContentConfig, "pipeline.json": PipelineConfig}
    return files[name] if name in files else zoo.model_class(name).Config


def keys_of(value: Any, at: str = "") -> set[str]:
    """Paths of a JSON value's leaves."""
    if not isinstance(value, dict):
        return {at[1:]}
    return {key for name, one in value.items() for key in keys_of(one, f"{at}.{name}")}


@pytest.mark.parametrize("name", KNOWN_BEFORE)
def test_what_is_as_before_is_written_as_before(name: str) -> None:
    known = set(KNOWN_BEFORE[name].split())
    config = config_of(name).parse(PIPELINE if name == "pipeline.json" else {}, name)
    for written in (config.model_dump(mode="json"), json.loads(config.model_dump_json())):
        sections = {key.partition(".")[0] for key in known}
        assert (
            keys_of({key: one for key, one in written.items() if key in sections or name != "pipeline.json"})
            == known
        )
        assert type(config).parse(written, name) == config


@pytest.mark.parametrize("name", CHANGED)
def test_what_the_release_before_cannot_do_is_written(name: str) -> None:
    config = config_of(name).parse(CHANGED[name], name)
    written = config.model_dump(mode="json")
    assert keys_of(CHANGED[name]) & keys_of(written) - set(KNOWN_BEFORE[name].split())
    assert type(config).parse(written, name) == config


@pytest.mark.parametrize("kind", [LinUcb, LinThompson])
def test_places_of_a_context_are_written(kind: type[LinUcb | LinThompson]) -> None:
    """The release before hashes them all: it has to refuse an experiment whose weights mean other places (docs/operations.md)."""
    assert json.loads(kind.parse({}, kind.__name__).model_dump_json())["encoding"] == 2
