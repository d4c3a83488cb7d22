"""`tastemaker …`: the root of the command line. Commands are found through the entry-point group `tastemaker.commands`."""

import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from tastemaker import __version__, context
from tastemaker.commands import (
    bundles,
    catalogues,
    data,
    demo,
    doctor,
    editorial,
    experiments,
    features,
    home,
    indexes,
    ope,
    position_bias,
    promotions,
    retention,
    rules,
    simulation,
    users,
    versions,
)
from tastemaker.errors import TastemakerError, UsageError
from tastemaker.terminal import errors

app = typer.Typer(
    name="tastemaker",
    help="A self-hosted recommender platform: train, release, serve and compare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
INTERRUPTED = 130


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tastemaker {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of the embedded mode.")] = None,
    catalogue: Annotated[str | None, typer.Option(help="Which catalogue.")] = None,
    debug: Annotated[bool, typer.Option(help="Show the traceback of a failure.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Reads the settings that every command sees, and tells commands that run others how (`Context.obj`)."""
    del version
    ctx.obj = invoke
    if debug:
        os.environ["TASTEMAKER_DEBUG"] = "1"
    if config or home or catalogue or not context.is_set():
        from tastemaker.config_sources import load_settings

        context.use(load_settings(config, flags={"home": home and str(home), "catalogue": catalogue}))


for _part in (
    home,
    catalogues,
    data,
    users,
    bundles,
    promotions,
    versions,
    experiments,
    simulation,
    features,
    indexes,
    editorial,
    ope,
    position_bias,
    rules,
    demo,
    doctor,
    retention,
):
    app.registered_commands += _part.app.registered_commands
    app.registered_groups += _part.app.registered_groups


def _load_plugins() -> None:
    for point in entry_points(group="tastemaker.commands"):
        plugin = point.load()
        app.registered_commands += [c for c in plugin.registered_commands if c not in app.registered_commands]
        app.registered_groups += [g for g in plugin.registered_groups if g not in app.registered_groups]


def invoke(arguments: Sequence[str]) -> Any:
    """Runs one command in this process and gives what its function returned.

    Raises:
        UsageError: The arguments were refused.
        TastemakerError: The command failed.
    """
    _load_plugins()
    try:
        outcome = typer.main.get_command(app).main(
            list(arguments), prog_name="tastemaker", standalone_mode=False
        )
    except typer.TyperException as error:
        raise UsageError(str(error).rstrip("."), mend="see `tastemaker --help`") from error
    if outcome == INTERRUPTED:  # what typer makes of Ctrl-C
        raise KeyboardInterrupt
    return outcome


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Exit code 0 done, 1 failed, 2 misused, 130 interrupted."""
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever stops us, we stop what we started
    try:
        with context.lifetime:
            outcome = invoke(arguments)
        return outcome if isinstance(outcome, int) and not isinstance(outcome, bool) else 0
    except TastemakerError as error:
        return _fail(error, error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        errors.print("interrupted: stopped all that was started")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 (the border to the user: one line, no traceback)
        return _fail(error, 1)


def _fail(error: Exception, code: int) -> int:
    if os.environ.get("TASTEMAKER_DEBUG"):
        errors.print_exception()
    text = str(error) if isinstance(error, TastemakerError) else f"{type(error).__name__}: {error}"
    hint = "" if isinstance(error, TastemakerError) else " (run again with --debug for the traceback)"
    errors.print(f"error: {' '.join(text.split())}{hint}", markup=False)
    return code


if __name__ == "__main__":
    main()
