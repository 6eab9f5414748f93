"""Restoring pictures and recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from molflow.commands.console import Device, Overwrite, Seed, check_free, live


def restore(
    file: Annotated[Path, typer.Argument(help="Damaged picture (PNG, JPEG, TIFF) or recording (WAV, FLAC).")],
    task: Annotated[str, typer.Option(help="Of a picture: inpaint, superresolve, deblur, denoise, hdr. Of a recording: "
                                           "inpaint, extend, declip, denoise.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    mask: Annotated[Path | None, typer.Option(help="inpaint: picture, bright where to fill in.")] = None,
    gaps: Annotated[str | None, typer.Option(help="inpaint: where to fill in, seconds: 0.50-0.53,1.20-1.24.")] = None,
    factor: Annotated[int, typer.Option(help="superresolve: 2 or 4.")] = 2,
    blur: Annotated[float | None, typer.Option(help="deblur: standard deviation of a Gaussian, pixels.")] = None,
    motion: Annotated[str | None, typer.Option(help="deblur: a straight movement, LENGTH,DEGREES.")] = None,
    noise: Annotated[float, typer.Option(help="Standard deviation of the noise, of a full scale of 1.")] = 0.0,
    prior: Annotated[str | None, typer.Option(help="photos, digits, speech, or a file of weights.")] = None,
    film: Annotated[Path | None, typer.Option(help="GIF file of the way from damaged to restored.")] = None,
    compare: Annotated[Path | None, typer.Option(help="PNG file for before and after, side by side.")] = None,
    method: Annotated[str, typer.Option(help="mean: of all signals that would look so damaged, of sound the mean "
                                             "of levels; dflow: D-Flow as published, one of them, slower.")] = "mean",
    evals: Annotated[int | None, typer.Option(help="dflow: most gradients for each tile; default 60.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Restore a damaged picture or recording with the flow of a prior."""
    from molflow.inverse.files import Shown, Wanted, restore_file
    from molflow.models import pick_device

    check_free(overwrite, out, compare, film)
    wanted = Wanted(task, mask, gaps, factor, blur, motion, noise, prior, seed, method, evals,
                    str(pick_device(device)))
    with live() as tell:
        said = restore_file(file, out, wanted, Shown(compare, film), progress=tell)
    print(said)
