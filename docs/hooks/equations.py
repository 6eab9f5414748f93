"""Equations, from LaTeX to MathML while the site is built: the pages need no script for them.

A fence named ``math`` makes a block, ``#!math`` at the beginning of code between backticks a piece of a line.
"""

from __future__ import annotations

from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig


def block(source: str, *_: Any, **__: Any) -> str:
    """A <div> with the equation in it."""
    return f'<div class="math">{convert(source, display="block")}</div>'


def inline(source: str, *_: Any) -> str:
    """The equation, to stand in a line."""
    return convert(source)


def on_config(config: MkDocsConfig) -> None:
    """Tell the extensions of Markdown."""
    for extension, kind, write in (("superfences", "custom_fences", block), ("inlinehilite", "custom_inline", inline)):
        settings = config.mdx_configs.setdefault(f"pymdownx.{extension}", {})
        settings[kind] = [{"name": "math", "class": "math", "format": write}]
