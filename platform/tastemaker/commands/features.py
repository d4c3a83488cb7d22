"""`tastemaker features …`: what Feast holds of users and items, and how fresh it is."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.terminal import console, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tastemaker.features.feast_offline import Batch
    from tastemaker.features.ranker_services import RankerService
    from tastemaker.features.views import ViewRows

app = typer.Typer()
features = typer.Typer(help="Features of users and items, in Feast and online.")
app.add_typer(features, name="features")


@features.command("apply")
def apply(as_json: Json = False) -> dict[str, Any]:
    """Write the catalogue's Feast repo and register its views; Redis/Valkey must run."""
    from tastemaker.features.feast_repo import apply_repo, repo_folder, write_repo
    from tastemaker.features.ranker_services import service_name
    from tastemaker.features.views import SERVICE
    from tastemaker.state.connection import url_of

    settings, home = context.settings(), context.home()
    folder = repo_folder(home, settings.catalogue)
    rankers = _released_rankers()
    write_repo(folder, settings.catalogue, url_of(settings, home), rankers)
    applied = {"repo": str(folder), "views": apply_repo(folder)}
    applied["services"] = [SERVICE, *(service_name(id_) for id_, ranker in rankers.items() if ranker.views)]
    if as_json:
        print_json(applied)
    else:
        services = ", ".join(applied["services"])
        console.print(f"{len(applied['views'])} views are registered in {folder}", markup=False)
        console.print(f"feature services: {services}", markup=False)
        console.print(f"look at them with `feast -c {folder} feature-views list`", markup=False)
    return applied


@features.command("materialize")
def materialize(as_json: Json = False) -> dict[str, int]:
    """Write the rows of all users and items anew: online, and to the offline Parquet files."""
    from tastemaker.features import feast_offline
    from tastemaker.features.feast_repo import repo_folder, require_repo
    from tastemaker.features.feast_rows import FeastRows
    from tastemaker.state.connection import open_keys, open_state
    from tastemaker.terminal import track

    settings, home = context.settings(), context.home()
    folder = repo_folder(home, settings.catalogue)
    require_repo(folder)
    with open_state(settings, home) as client:
        keys = open_keys(client, settings)
        batches = [
            feast_offline.user_batches(client, keys), feast_offline.profile_batches(client, keys),
            feast_offline.item_batches(client, keys), _catalogue_batches(),
        ]  # fmt: skip
        counts = feast_offline.materialize(
            track((batch for part in batches for batch in part), "batches"),
            FeastRows(client, settings.catalogue),
            folder,
            int(time.time() * 1000),
        )
    if as_json:
        print_json(counts)
    else:
        print_table("Materialized", ["view", "rows"], counts.items())
    return counts


@features.command("rebuild")
def rebuild(as_json: Json = False) -> dict[str, Any]:
    """Make all online features anew from the archived log, while no stream consumer runs."""
    from dataclasses import asdict

    from tastemaker.features.rebuild import rebuild as rebuild_features
    from tastemaker.state.connection import open_keys, open_state

    settings, home = context.settings(), context.home()
    with open_state(settings, home) as client:
        done = asdict(rebuild_features(client, open_keys(client, settings), home, settings.state))
    if as_json:
        print_json(done)
    else:
        rows = ((name.replace("_", " "), f"{count:,.0f}") for name, count in done.items())
        print_table("Rebuilt", ["what", "count"], rows)
    return done


@features.command("freshness")
def freshness(as_json: Json = False) -> dict[str, Any]:
    """How old the newest and the oldest row of each view are, and how many wait to be written."""
    from tastemaker.features.feast_rows import FeastRows
    from tastemaker.features.freshness import view_ages
    from tastemaker.features.projection import num_pending
    from tastemaker.state.connection import open_keys, open_state

    settings = context.settings()
    with open_state(settings, context.home()) as client:
        pending = num_pending(client, open_keys(client, settings))
        ages = view_ages(FeastRows(client, settings.catalogue), time.time_ns())
    found = {"views": [age._asdict() for age in ages], "pending": dict(pending)}
    if as_json:
        print_json(found)
    else:
        rows = [
            (age.view, age.rows, _duration(age.newest_seconds), _duration(age.oldest_seconds)) for age in ages
        ]
        print_table("Rows of Feast", ["view", "rows", "newest is of", "oldest is of"], rows)
        waiting = ", ".join(f"{count:,} {entity}s" for entity, count in pending.items())
        console.print(f"changed and not yet written: {waiting}", markup=False)
    return found


@features.command("show")
def show(
    user: Annotated[str, typer.Argument(help="The user's id.")], as_json: Json = False
) -> dict[str, Any]:
    """A user's features as of now, from the record that serving reads."""
    from tastemaker.errors import DataError
    from tastemaker.features.records import read_user
    from tastemaker.features.view_rows import user_rows
    from tastemaker.state.connection import open_keys, open_state

    settings = context.settings()
    with open_state(settings, context.home()) as client:
        state = read_user(client, open_keys(client, settings), user)
    if not state.last_ms:
        raise DataError(
            f"user {user} of catalogue {settings.catalogue} has no features",
            mend="check the id; features come with a user's first event",
        )
    now_ms = int(time.time() * 1000)
    views = {rows.view.name: _as_of(rows, now_ms) for rows in user_rows([state])}
    if as_json:
        print_json({"user_id": user, "views": views})
    else:
        for name, view in views.items():
            age = _duration(view["age_seconds"])
            shown = [(feature, _short(value)) for feature, value in view["values"].items() if value]
            print_table(f"{name} of {user}, newest event {age} ago", ["feature", "now"], shown)
        console.print("features that are 0 or unknown are left out", markup=False)
    return views


@features.command("top")
def show_top(
    name: Annotated[str, typer.Option(help="trending or popular.")] = "trending",
    country: Annotated[str | None, typer.Option(help="Two letters: what happened there alone.")] = None,
    category: Annotated[str | None, typer.Option(help="Items of this category alone.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Items.")] = 20,
    as_json: Json = False,
) -> dict[str, Any]:
    """The items that are ranked first by the events of now, each with its decayed weight."""
    from tastemaker.features.rankings import ranking_of, top
    from tastemaker.state.connection import open_keys, open_state

    settings, now_ms = context.settings(), int(time.time() * 1000)
    ranking = ranking_of(name, country=country, category=category)
    with open_state(settings, context.home()) as client:
        found = top(client, open_keys(client, settings), ranking, k, now_ms)
    ranked = zip(found.item_ids, found.weight_N, strict=True)
    items = [
        {"rank": n, "item_id": item_id, "weight": weight} for n, (item_id, weight) in enumerate(ranked, 1)
    ]
    shown = {"ranking": ranking, "items": items}
    if as_json:
        print_json(shown)
    else:
        rows = [(item["rank"], item["item_id"], _short(item["weight"])) for item in items]
        print_table(ranking, ["rank", "item", "weight"], rows)
    return shown


@features.command("skew")
def skew(
    hours: Annotated[float, typer.Option(min=0.0, help="Answers of so many hours up to now.")] = 24.0,
    as_json: Json = False,
) -> dict[str, Any]:
    """How far the features that answers were ranked by lie from those that the log gives for the same moments."""
    from dataclasses import asdict

    from tastemaker.experiments.skew import LAG_MS, measure_skew

    settings, now_ms = context.settings(), int(time.time() * 1000)
    since_ms, until_ms = now_ms - round(hours * 3_600_000), now_ms - LAG_MS
    found = measure_skew(context.home(), settings.catalogue, settings.state.late_days, since_ms, until_ms)
    if as_json:
        print_json(asdict(found))
        return asdict(found)
    rows = [
        (one.feature, f"{one.differing:.1%}", f"{one.mean:.3g}", f"{one.largest:.3g}", one.rows)
        for one in found.features
    ]
    print_table("Served beside the log", ["feature", "differ", "mean", "largest", "rows"], rows)
    text = f"{found.num_answers:,} answers, {found.rows:,} items compared, {found.num_skipped:,} passed over"
    console.print(text, markup=False)
    return asdict(found)


def _released_rankers() -> "dict[str, RankerService]":
    """By bundle id, what the rankers of all aliases read; none before anything was published."""
    from tastemaker.bundle.reader import Bundle
    from tastemaker.bundle.store import BundleStore
    from tastemaker.features.ranker_services import RankerService
    from tastemaker.registry.client import Registry

    settings, home = context.settings(), context.home()
    store, found = BundleStore.of(settings, home), {}
    for version in Registry(settings, home).aliases(settings.catalogue).values():
        bundle = Bundle.open(store, version.ref)
        names = bundle.json("pipeline.json")["hydration"].get("request_features", [])
        if names:
            recipe = bundle.manifest.recipe
            found[bundle.bundle_id] = RankerService(recipe=recipe, features=tuple(names))
    return found


def _as_of(rows: "ViewRows", now_ms: int) -> dict[str, Any]:
    """A view's one row as of a moment, and how long ago its newest event was; None where there was none."""
    last_ms = rows.value_NF[0, 0]
    age = round((now_ms - last_ms) / 1000, 3) if last_ms else None
    return {"age_seconds": age, "values": rows.row(0, rows.at(now_ms))}


def _catalogue_batches() -> "Iterator[Batch]":
    """Rows of the imported and put items; none where nothing was imported."""
    from tastemaker.data.item_archive import ItemArchive, current_items
    from tastemaker.data.schema import imported_folder
    from tastemaker.features.feast_offline import catalogue_batches

    settings, home = context.settings(), context.home()
    folder = imported_folder(home, settings.catalogue)
    if folder.is_dir():
        archive = ItemArchive(home, settings.catalogue).path
        files = [file for file in (folder / "items.parquet", archive) if file.exists()]
        said_ms = max(int(file.stat().st_mtime * 1000) for file in files)
        yield from catalogue_batches(current_items(home, settings.catalogue), said_ms, _content_space())


def _content_space() -> str:
    """Fingerprint of the champion's content space; empty where there is none."""
    from tastemaker.bundle.reader import Bundle
    from tastemaker.bundle.store import BundleStore
    from tastemaker.registry.client import Registry

    settings, home = context.settings(), context.home()
    champion = Registry(settings, home).aliases(settings.catalogue).get("champion")
    if champion is None:
        return ""
    bundle = Bundle.open(BundleStore.of(settings, home), champion.ref)
    return str(bundle.json("content.json")["fingerprint"]) if bundle.has("content.json") else ""


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


def _duration(seconds: float | None) -> str:
    """A length of time for people.

    >>> _duration(42.04), _duration(7260), _duration(200_000), _duration(None)
    ('42.0 s', '2.0 h', '2.3 d', '')
    """
    if seconds is None:
        return ""
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
