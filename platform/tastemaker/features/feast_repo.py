"""The Feast repo of a catalogue, on which Feast's own commands work: `feast -c FOLDER feature-views list`.

    feature_store.yaml    where registry and online store are; holds the store's password, mode 0600
    definitions.py        hands Feast what `views` defines
    rankers.json          what each released ranker reads: a feature service of its own
    registry.db           what was applied
    offline/VIEW.parquet  what `feast_offline` wrote

Feast is imported late, for it takes seconds; serving needs none of this. The embedded Valkey has another port after a
restart: writing the repo again is always right.
"""

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import yaml

from tastemaker.errors import DataError, MissingExtraError, UsageError
from tastemaker.features.feast_format import project_of
from tastemaker.features.ranker_services import RankerService, service_name
from tastemaker.features.views import ENTITIES, SERVICE, VIEWS, View, join_key, views_of
from tastemaker.home import Home, write_bytes, write_json
from tastemaker.state.layout import SCHEMES, ClusterUrl, is_cluster
from tastemaker.types import catalogue_name

TIME, WRITTEN = "event_timestamp", "created"
"""Columns of the offline files: the time that a row is of, and when it was written."""
APPLY_MEND: Final = "run `tastemaker features apply`"
_RANKERS: Final = "rankers.json"
_DEFINITIONS = '''"""Entities, views and the service of this catalogue, as `tastemaker.features.views` defines them."""

from pathlib import Path

from tastemaker.features.feast_repo import feast_objects

globals().update(feast_objects(Path(__file__).parent))
'''


def repo_folder(home: Home, catalogue: str) -> Path:
    """Where a catalogue's repo lies."""
    return home / "feast" / catalogue_name(catalogue)


def offline_file(folder: Path, view: View) -> Path:
    """Where the repo in `folder` has a view's offline rows."""
    return folder / "offline" / f"{view.name}.parquet"


def is_repo(folder: Path) -> bool:
    """Whether a repo was written there."""
    return (folder / "feature_store.yaml").exists()


def require_repo(folder: Path) -> None:
    """Returns where a repo was written.

    Raises:
        DataError: None was.
    """
    if not is_repo(folder):
        raise DataError(f"no Feast repo at {folder}", mend=APPLY_MEND)


def write_repo(
    folder: Path, catalogue: str, url: str, rankers: Mapping[str, RankerService] | None = None
) -> None:
    """Writes the repo's files, the offline ones aside, in place of earlier ones.

    Args:
        folder: Made where it is not there.
        catalogue: Whose project it is.
        url: Of the role `state.url`, password included.
        rankers: By bundle id, what released rankers read.

    Raises:
        UsageError: Feast cannot be told such a URL.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = {
        "project": project_of(catalogue),
        "provider": "local",
        "registry": {"registry_type": "file", "path": "registry.db", "cache_ttl_seconds": 60},
        "online_store": {
            "type": "redis",
            "redis_type": "redis_cluster" if is_cluster(url) else "redis",
            "connection_string": connection_string(url),
            "full_scan_for_deletion": False,  # it matches keys by their end, and so those of other projects
        },
        "offline_store": {"type": "file"},
        "entity_key_serialization_version": 3,
    }
    file = folder / "feature_store.yaml"
    write_bytes(file, yaml.safe_dump(store, sort_keys=False).encode())
    file.chmod(0o600)
    write_bytes(folder / "definitions.py", _DEFINITIONS.encode())
    write_json(
        folder / _RANKERS, {id_: service.model_dump(mode="json") for id_, service in (rankers or {}).items()}
    )


def connection_string(url: str) -> str:
    r"""What Feast calls a Redis URL.

    Feast splits it at commas, reads values as JSON and has the environment fill in `$NAME`: so that texts survive it,
    they are JSON without such characters.

    >>> connection_string("rediss://:p%40,$x@host:7000/2")
    'host:7000,db=2,ssl=true,password="p@\\u002c\\u0024x"'

    Of a cluster, all nodes that the URL names:

    >>> connection_string("redis+cluster://a:7000,b")
    'a:7000,b:6379'

    Raises:
        UsageError: The URL names a socket or an IPv6 address.
    """
    parts = urlsplit(url)
    scheme = SCHEMES.get(parts.scheme, parts.scheme)
    if is_cluster(url):
        nodes, database = ClusterUrl.of(url).nodes, None
    else:
        nodes, database = ((parts.hostname or "", parts.port or 6379),), parts.path.strip("/") or 0
    if scheme not in ("redis", "rediss") or not all(host and ":" not in host for host, _ in nodes):
        raise UsageError(
            "state.url for Feast", value=f"{parts.scheme}://{', '.join(host for host, _ in nodes)}",
            limit="redis:// or rediss:// and a host's name", mend="name the host by a name or an IPv4 address",
        )  # fmt: skip
    options = [f"{host}:{port}" for host, port in nodes]
    if database is not None:
        options.append(f"db={database}")
    if scheme == "rediss":
        options.append("ssl=true")
    for name, text in (("username", parts.username), ("password", parts.password)):
        if text:
            quoted = json.dumps(unquote(text)).replace(",", r"\u002c").replace("$", r"\u0024")
            options.append(f"{name}={quoted}")
    return ",".join(options)


def apply_repo(folder: Path) -> list[str]:
    """Registers what `views` and the released rankers define in the repo's registry; gives the names of the views.

    Services of rankers that are released no more go.

    Raises:
        MissingExtraError: Feast is not installed.
    """
    objects, store = feast_objects(folder), open_store(folder)
    store.apply(list(objects.values()))
    for service in store.list_feature_services():
        if service.name not in objects:
            store.delete_feature_service(service.name)
    return [view.name for view in VIEWS]


def open_store(folder: Path) -> Any:
    """Feast's own `FeatureStore` of a repo.

    Raises:
        DataError: No repo is there.
        MissingExtraError: Feast is not installed.
    """
    require_repo(folder)
    return _feast().FeatureStore(repo_path=str(folder))


def feast_objects(folder: Path) -> dict[str, Any]:
    """Feast's objects by name: entities, sources, views and services.

    Raises:
        MissingExtraError: Feast is not installed.
    """
    feast = _feast()
    entities: dict[str, Any] = {
        entity: feast.Entity(
            name=entity, join_keys=[join_key(entity)], value_type=feast.ValueType.STRING,
            description=f"who or what {len(views_of(entity))} views are of",
        )
        for entity in ENTITIES
    }  # fmt: skip
    views = {view.name: _feature_view(feast, view, entities[view.entity], folder) for view in VIEWS}
    service = feast.FeatureService(
        name=SERVICE, features=list(views.values()), description="what the ranker may read"
    )
    return {**entities, **views, SERVICE: service, **_ranker_services(feast, views, folder)}


def _ranker_services(feast: Any, views: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """One service for each released ranker that reads anything of the views."""
    file = folder / _RANKERS
    listed: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    rankers = {id_: RankerService.parse(tree, str(file)) for id_, tree in listed.items()}
    return {
        service_name(bundle_id): feast.FeatureService(
            name=service_name(bundle_id), features=[views[name] for name in ranker.views],
            description=f"what the ranker of bundle {bundle_id}, recipe {ranker.recipe}, reads",
        )
        for bundle_id, ranker in rankers.items()
        if ranker.views
    }  # fmt: skip


def _feature_view(feast: Any, view: View, entity: Any, folder: Path) -> Any:
    from feast import types

    kinds: Mapping[str, Any] = {"float64": types.Float64, "int64": types.Int64, "string": types.String}
    source = feast.FileSource(
        name=f"{view.name}_file", path=str(offline_file(folder, view)), timestamp_field=TIME,
        created_timestamp_column=WRITTEN,
    )  # fmt: skip
    if view.pushed:
        source = feast.PushSource(name=f"{view.name}_push", batch_source=source)
    fields = [feast.Field(name=f.name, dtype=kinds[f.kind], description=f.about) for f in view.features]
    return feast.FeatureView(
        name=view.name, entities=[entity], description=view.about, source=source, online=True,
        schema=[feast.Field(name=join_key(view.entity), dtype=types.String), *fields],
        ttl=timedelta(0),  # rows stay: their time says how old they are
    )  # fmt: skip


def _feast() -> Any:
    try:
        import feast
    except ImportError as error:
        raise MissingExtraError("Feast is not installed", mend="pip install 'tastemaker[train]'") from error
    return feast
