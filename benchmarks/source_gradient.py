"""What the source does to a gradient: on a mixture whose flow is known, it is projected on the data's directions."""

from __future__ import annotations

import io
from typing import Any

import torch
from matplotlib import style
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.inverse import mixture
from benchmarks.tables import Picture, Table, number

ARROWS = 24
"""Drawn, of all that are counted."""


def run(*, pictures: list[Picture], n: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Random gradients g at the endpoints of ``n`` sources, and what a step down the source's gradient J'g moves the
    endpoint by, -J J'g."""
    end, jacobian = mixture.ends(mixture.sources(n, seed))
    push = mixture.sources(n, seed + 1)
    moved = (jacobian @ jacobian.mT @ push[..., None])[..., 0]
    along = mixture.DIRECTIONS[mixture.component(end)]
    before, after = alignment(push, along), alignment(moved, along)
    stretch = torch.linalg.svdvals(jacobian)
    pictures.append(Picture(
        "arrows", "A gradient in data space, and what the source makes of it", draw(end, push, moved, before, after),
        f"Left and middle: {min(ARROWS, n)} random gradients of one length at endpoints of the flow, and what a small "
        "step down the gradient at the source moves these endpoints by, drawn equally long; shaded is the data's "
        f"density. Right: the cosine of the angle to the direction in which the component varies, of {n}."))
    quantiles = (0.1, 0.5, 0.9)
    return {"n": n, "quantiles": quantiles, "long": mixture.LONG, "short": mixture.SHORT,
            "before": [before.quantile(q).item() for q in quantiles],
            "after": [after.quantile(q).item() for q in quantiles],
            "stretch": [stretch[:, i].quantile(0.5).item() for i in (0, 1)]}


def alignment(x: Tensor, along: Tensor) -> Tensor:
    """(B,) cosine, without its sign, of the angle between rows."""
    return torch.nn.functional.cosine_similarity(x, along, dim=1).abs()


def draw(end: Tensor, push: Tensor, moved: Tensor, before: Tensor, after: Tensor) -> bytes:
    """PNG: gradients, what becomes of them, and how they point."""
    axis = torch.linspace(-3.6, 3.6, 241, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    shade = mixture.density(grid).view(len(axis), -1).T.sqrt().numpy()
    with style.context("default"):  # whatever the user has set
        figure = Figure(figsize=(13, 4.4), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        for axes, arrows, colour, title in ((left, push, "C3", "gradient g of some loss"),
                                            (middle, moved, "C0", "J J'g, by way of the source")):
            axes.pcolormesh(axis.numpy(), axis.numpy(), shade, cmap="Greys", vmax=2 * shade.max(), shading="auto")
            unit = torch.nn.functional.normalize(arrows[:ARROWS])
            axes.quiver(*end[:ARROWS].T.numpy(), *unit.T.numpy(), color=colour, angles="xy", scale_units="xy",
                        scale=1.6, width=0.006)
            axes.set(title=title, aspect="equal", xlim=(-3.6, 3.6), ylim=(-3.6, 3.6), xticks=[], yticks=[])
        for values, colour, label in ((before, "C3", "g"), (after, "C0", "J J'g")):
            right.hist(values.numpy(), bins=25, range=(0, 1), color=colour, alpha=0.7, label=label)
        right.set(xlabel="cosine to the direction of the data", ylabel="gradients", yscale="log")
        right.legend(frameon=False)
        right.spines[["top", "right"]].set_visible(False)
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=110)
    return png.getvalue()


def tables(results: dict[str, Any]) -> list[Table]:
    heads = [f"{100 * q:.0f} %" for q in results["quantiles"]]
    rows = [[label, *map(number, results[key])] for label, key in (("gradient g", "before"), ("J J'g", "after"))]
    wide, narrow = results["stretch"]
    return [Table(f"Cosine to the direction in which the data vary, quantiles of {results['n']}", ["", *heads], rows,
                  f"Components of {results['long']} by {results['short']}; the flow's Jacobian stretches by "
                  f"{number(wide)} along and {number(narrow)} across, medians.")]
