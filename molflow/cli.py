"""The same functions, for the shell."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from molflow import __version__
from molflow.commands import campaign, data, train
from molflow.commands.console import InputError, printable
from molflow.commands.design import design, sample, write_report
from molflow.commands.grade import evaluate, likelihood, predict, verify
from molflow.commands.info import info
from molflow.commands.restore import restore
from molflow.extras import needed

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

app.command()(design)
app.command("report")(write_report)
for command in (sample, predict, likelihood, evaluate, verify, restore, info):
    app.command()(command)
app.add_typer(data.app, name="data")
app.add_typer(campaign.app, name="campaign")
app.add_typer(train.app, name="train")


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(f"molflow {__version__}")
        raise typer.Exit


@app.callback()
def _every_command(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_tell_version,
                                          help="Print the version and leave.")] = False,
) -> None:
    """Molecules with the properties you ask for."""


def main() -> None:
    """Run the command line."""
    answer(app, "molflow")


def answer(app: typer.Typer, name: str) -> None:
    """Run a command line. Exit status 2 for bad input, 1 for work that failed, one sentence of ``name`` either way."""
    try:
        try:
            with needed():
                app(standalone_mode=True)
        finally:
            _flush()
    except (InputError, ValueError, FileExistsError, FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        fail(name, sentence(error), 2)
    except (OSError, MemoryError, RuntimeError) as error:
        fail(name, f"failed: {sentence(error)}", 1)
    except KeyboardInterrupt:
        fail(name, "stopped", 130)


def _flush() -> None:
    """See that what was printed is out, while it can still be told that the disk behind it is full."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python tries again at its end, aloud
        if isinstance(error, BrokenPipeError):  # the reader has seen enough
            raise SystemExit(1) from None
        raise OSError(error.errno, error.strerror, "standard output") from None


def sentence(error: BaseException) -> str:
    """What an exception says, in one line and without the operating system's number."""
    if isinstance(error, OSError) and error.strerror:
        return printable(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    return printable(str(error).splitlines()[0] if str(error) else type(error).__name__)


def fail(name: str, message: str, status: int) -> None:
    """Say what is wrong in one line and leave."""
    print(f"{name}: {message}", file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
