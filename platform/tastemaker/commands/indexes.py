"""`tastemaker index tune`: which index finds what it must, fast enough, on a bundle's own vectors."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker import context
from tastemaker.commands.options import Json
from tastemaker.terminal import console, print_json, print_table

if TYPE_CHECKING:
    from tastemaker.bundle.reader import Bundle
    from tastemaker.index.tuning import Trial, Wanted
    from tastemaker.registry.versions import Version

app = typer.Typer()
indexes = typer.Typer(help="Indexes that items are searched by.")
app.add_typer(indexes, name="index")
_KINDS = "flat,hnsw,ivf-flat,ivf-pq"
_TARGETS = {"exact_up_to", "recall"}
"""Keys of a config that say what was wanted, not what the index is."""


@indexes.command("tune")
def tune(
    version: Annotated[str, typer.Option(help="A number, or champion, challenger or shadow.")] = "champion",
    name: Annotated[str, typer.Option("--index", help="File of the bundle.")] = "index.faiss",
    recall: Annotated[float, typer.Option(min=0.01, max=1.0, help="Least recall@100.")] = 0.95,
    latency: Annotated[float, typer.Option(min=0.001, help="Most ms that 99 of 100 searches take.")] = 3.0,
    queries: Annotated[int, typer.Option(min=20, max=100_000, help="Searches of each trial.")] = 500,
    kinds: Annotated[str, typer.Option(help="Which kinds, by comma.")] = _KINDS,
    out: Annotated[
        Path | None, typer.Option(help="Folder of page and recipe; unset, below the home.")
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Publish the bundle with it, as a new version.")
    ] = False,
    as_json: Json = False,
) -> dict[str, Any]:
    """Try kinds of index and their parameters on a bundle's vectors; choose for a recall and a latency."""
    from tastemaker.bundle.store import BundleStore
    from tastemaker.evaluation.index_queries import bundle_queries
    from tastemaker.index.tuning import Wanted, choose, nearest, structures, try_out
    from tastemaker.registry.client import Registry
    from tastemaker.terminal import progress

    settings, home = context.settings(), context.home()
    registry, store = Registry(settings, home), BundleStore.of(settings, home)
    found = registry.version(settings.catalogue, int(version) if version.isdigit() else version)
    bundle = _opened(store, found, name)
    asked, wanted = bundle_queries(bundle, name, home, queries), Wanted(recall, latency)
    vectors_ID = bundle.index(name).vectors()
    built = structures(len(vectors_ID), vectors_ID.shape[1], _kinds(kinds))
    with progress("trying indexes", len(built)) as done:
        trials = try_out(vectors_ID, asked.vectors_BD, asked.kind, built, wanted, done)
    chosen = choose(trials, wanted)
    best = chosen or nearest(trials, wanted)
    folder = out or home / "checkpoints" / "indexes" / f"{bundle.bundle_id}-{name.removesuffix('.faiss')}"
    files = _write(folder, bundle, name, trials, wanted, chosen or best)
    outcome: dict[str, Any] = {
        "version": found.number, "bundle": bundle.bundle_id, "index": name, "num_items": len(vectors_ID),
        "queries": asked.kind, "meets": chosen is not None, "chosen": _plain(best),
        "trials": [_plain(trial) for trial in trials], "report": str(files[0]), "recipe": str(files[1]),
        "is_so_already": _same(best, bundle, name),
    }  # fmt: skip
    if not as_json:
        _show(outcome, trials, best, wanted)
    made = _publish(registry, store, found, bundle, name, chosen) if apply else None
    outcome["published"] = made
    if as_json:
        print_json(outcome)
    elif made:
        text = f"version {made['version']} is the bundle with it, {made['bundle']}, which no alias names yet"
        console.print(text, markup=False)
    return outcome


def _opened(store: Any, version: "Version", name: str) -> "Bundle":
    from tastemaker.bundle.reader import Bundle
    from tastemaker.errors import UsageError

    bundle = Bundle.open(store, version.ref)
    names = [file for file, info in bundle.manifest.files.items() if info.index]
    if name not in names:
        raise UsageError("--index", value=name, limit=f"one of: {', '.join(sorted(names)) or 'none'}")
    return bundle


def _kinds(text: str) -> list[Any]:
    from tastemaker.errors import UsageError
    from tastemaker.index.tuning import KINDS

    found = [kind.strip() for kind in text.split(",") if kind.strip()]
    if not found or (unknown := [kind for kind in found if kind not in KINDS]):
        raise UsageError("--kinds", value=(unknown if found else text), limit=f"some of: {', '.join(KINDS)}")
    return found


def _write(
    folder: Path, bundle: "Bundle", name: str, trials: "list[Trial]", wanted: "Wanted", best: "Trial"
) -> tuple[Path, Path]:
    """The page, and the part of a recipe that builds the next training's index so."""
    import yaml

    from tastemaker.home import write_bytes
    from tastemaker.index.tuning_page import render

    title = f"Indexes for {name} of bundle {bundle.bundle_id}"
    folder.mkdir(parents=True, exist_ok=True)
    page, recipe = folder / "index.html", folder / "index.yaml"
    write_bytes(page, render(title, {f"{len(trials)} trials": trials}, wanted, [best]).encode())
    key = "content_index" if name == "content.faiss" else "index"
    config = best.config.model_dump(mode="json", exclude_none=True, exclude=_TARGETS)
    told = f"# {title}: recall@100 {best.measured.recall:.4f}, p99 {best.measured.p99_ms:.2f} ms. Copy into a recipe.\n"
    write_bytes(recipe, (told + yaml.safe_dump({key: config}, sort_keys=False)).encode())
    return page, recipe


def _publish(
    registry: Any, store: Any, version: "Version", bundle: "Bundle", name: str, chosen: "Trial | None"
) -> dict[str, Any] | None:
    """The bundle with the chosen index, as a version that no alias names yet; None where it has that index already."""
    from tastemaker.bundle.reissue import with_index
    from tastemaker.errors import BundleError
    from tastemaker.index.faiss_index import FaissIndex

    if chosen is None:
        raise BundleError(
            "no index reaches both recall and latency, nothing was published",
            mend="raise --latency, lower --recall, or copy the part of a recipe that comes nearest",
        )
    if _same(chosen, bundle, name):
        return None
    index = FaissIndex.build(bundle.index(name).vectors(), chosen.config)
    ref = with_index(store, bundle, name, index, chosen.measured)
    made = registry.publish(bundle.manifest.catalogue, ref, version.metrics, version.run_id)
    return {"version": made.number, "bundle": ref.bundle_id, "uri": ref.uri}


def _same(trial: "Trial", bundle: "Bundle", name: str) -> bool:
    """Whether the bundle's index is built and searched as the trial was."""
    ours, theirs = (
        config.model_dump(exclude=_TARGETS) for config in (trial.config, bundle.index(name).config)
    )
    return ours == theirs


def _plain(trial: "Trial") -> dict[str, Any]:
    return {
        "config": trial.config.model_dump(mode="json", exclude_none=True),
        "measured": trial.measured.model_dump(mode="json"),
    }


def _show(outcome: dict[str, Any], trials: "list[Trial]", best: "Trial", wanted: "Wanted") -> None:
    from tastemaker.index.tuning_page import COLUMNS, row, worth_showing

    num, queries = outcome["num_items"], outcome["queries"]
    title = f"{outcome['index']} of {num:,} items, searched for {queries}; efforts that others are worse than"
    print_table(title, COLUMNS, map(row, worth_showing(trials)))
    what = ", ".join(row(best)[:2])
    limits = f"recall {wanted.recall:g} within {wanted.p99_ms:g} ms"
    text = (
        f"chosen for {limits}: {what}" if outcome["meets"] else f"nothing reaches {limits}; nearest: {what}"
    )
    console.print(text, markup=False)
    if outcome["is_so_already"]:
        console.print("the bundle's index is that already", markup=False)
    console.print(f"plots: {outcome['report']}; part of a recipe: {outcome['recipe']}", markup=False)
