"""Training settings: a TOML file with sections that mirror the classes below; anything left out has its default.

The recipes of the shipped weights lie beside this module and are known by their names.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from molflow.nn.property import PropertyConfig
from molflow.nn.unet import UNetConfig
from molflow.nn.velocity import VelocityConfig

T = TypeVar("T")
RECIPES = Path(__file__).parent / "recipes"
Part = Literal["half_a", "half_b", "train"]


class ConfigError(ValueError):
    """A setting is unknown or of the wrong kind."""


def _among(name: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


@dataclass(frozen=True)
class Run:
    """What every training has in common.

    Attributes:
        part: which molecules: a half of the training split, or all of it; says nothing of pictures and sound.
        molecules: how many training molecules, pictures or clips are seen in all, repeats counted.
        rate, rate_matrix: learning rates of AdamW (everything else) and Muon (hidden matrices).
        warmup, cooldown: share of the run in which the rate rises, and falls to zero at the end.
        ema: decay of the averaged weights, a step.
        compile: whether to compile the network first: minutes on a CPU, a third faster afterwards.
        batches: of a generator: ``molecules``: batch_size in each; ``pairs``: so many on average, in each batch as many
            pairs of atoms, for data whose molecules differ much in size.
        workers: processes that prepare batches; 0 does it in between.
        precision: ``bf16`` (autocast; float32 weights, positions and times) or ``float32``.
        weights: what the finished weights are written in, ``float32`` or ``float16``, half the size.
    """

    part: Part = "half_b"
    molecules: int = 2_000_000
    batch_size: int = 64
    batches: Literal["molecules", "pairs"] = "molecules"
    rate: float = 1e-3
    rate_matrix: float = 2e-3
    warmup: float = 0.01
    cooldown: float = 0.4
    weight_decay: float = 0.01
    ema: float = 0.999
    clip: float = 1.0
    precision: Literal["bf16", "float32"] = "bf16"
    weights: Literal["float32", "float16"] = "float32"
    compile: bool = True
    workers: int = 0
    seed: int = 0
    checkpoint_minutes: float = 3.0
    validate_minutes: float = 15.0

    def __post_init__(self) -> None:
        _among("run.part", self.part, get_args(Part))
        _among("run.batches", self.batches, ("molecules", "pairs"))
        _among("run.precision", self.precision, ("bf16", "float32"))
        _among("run.weights", self.weights, ("float32", "float16"))
        if not 1 <= self.batch_size <= self.molecules:
            raise ConfigError("run.batch_size must be at least 1, and run.molecules at least that")


@dataclass(frozen=True)
class GeneratorConfig:
    """The velocity network and its loss.

    Attributes:
        data: ``qm9``, ``moses3d``, ``geom`` or another that `molflow data prepare sdf` has made: the data set, of that
            name in the data folder too, or its file. The elements and charges that the network knows go with it.
        weight_types, weight_charges, weight_bonds: of the cross-entropies beside the positions' velocity error.
        self_condition: the share of batches in which the network sees its own first estimate.
    """

    run: Run = Run()
    network: VelocityConfig = field(default_factory=VelocityConfig)
    data: str = "qm9"
    weight_types: float = 0.4
    weight_charges: float = 0.2
    weight_bonds: float = 1.0
    self_condition: float = 0.5


@dataclass(frozen=True)
class PropertyTraining:
    """The property network, a guide or an evaluator by the part of the data it sees.

    Attributes:
        data: as of `GeneratorConfig`.
        properties: what the network reads; by default what goes with the data set, of one of your own all it has.
    """

    run: Run = Run(molecules=1_500_000, rate=1e-3, compile=False)
    network: PropertyConfig = field(default_factory=PropertyConfig)
    data: str = "qm9"
    properties: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not all(isinstance(name, str) for name in self.properties):
            raise ConfigError("properties must be names")


@dataclass(frozen=True)
class SignalConfig:
    """The prior of pictures or of sound.

    Attributes:
        data: ``digits``, ``photos`` or ``speech``: the data set, of that name in the data folder too.
        size: pixels or samples along each axis of what is learnt from.
        turned: whether a picture may come turned by any quarter, and mirrored.
        gain: sound comes louder or softer by up to this many dB.
        emphasis, scale: sound is x[n] - emphasis x[n - 1], times scale, for the flow.
    """

    run: Run = Run(compile=False, precision="float32", weights="float16")
    network: UNetConfig = field(default_factory=UNetConfig)
    data: str = "digits"
    size: int = 28
    turned: bool = False
    gain: float = 0.0
    emphasis: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        _among("data", self.data, ("digits", "photos", "speech"))
        if self.size < 1 or self.size % self.network.divisor:
            raise ConfigError(f"size must be a multiple of {self.network.divisor} for this network, got {self.size}")


def load(kind: type[T], source: str | Path) -> T:
    """Settings of one kind from a TOML file, or from a recipe: ``generator``, ``guide``, ...

    Raises ConfigError with the offending key, FileNotFoundError if there is neither recipe nor file of that name.
    """
    recipe = RECIPES / f"{source}.toml"
    path = recipe if recipe.is_file() else Path(source)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
        raise FileNotFoundError(f"no settings at {source}: give a TOML file or one of the recipes {known}")
    try:
        return build(kind, tomllib.loads(path.read_text(encoding="utf-8")))
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def build(kind: type[T], values: Mapping[str, Any]) -> T:
    """An instance of a settings class from nested mappings, over its defaults. Raises ConfigError."""
    return _over(kind(), values, "")


def _over(default: Any, values: Mapping[str, Any], section: str) -> Any:
    known = {f.name: getattr(default, f.name) for f in dataclasses.fields(default)}
    changes: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{section}{key}"
        if key not in known:
            raise ConfigError(f"unknown setting {name}: known here are {', '.join(known)}")
        old = known[key]
        if dataclasses.is_dataclass(old):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{name} is a section, not a value")
            changes[key] = _over(old, value, f"{name}.")
        elif isinstance(old, float) and type(value) is int:
            changes[key] = float(value)
        elif type(value) is not type(old):
            raise ConfigError(f"{name} wants {type(old).__name__}, got {value!r}")
        else:
            changes[key] = value
    try:
        return dataclasses.replace(default, **changes)
    except ConfigError:
        raise
    except ValueError as error:  # a network's sizes
        raise ConfigError(f"{section}{error}") from None
