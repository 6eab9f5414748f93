from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molflow.nn.velocity import VelocityConfig
from molflow.training.config import ConfigError, GeneratorConfig, PropertyTraining, Run, SignalConfig, build, load

KINDS = pytest.mark.parametrize("kind", [GeneratorConfig, PropertyTraining])


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@KINDS
def test_nothing_given_is_the_defaults(kind: type, tmp_path: Path) -> None:
    assert load(kind, write(tmp_path / "a.toml", "")) == build(kind, {}) == kind()


def test_what_is_given_is_set_and_all_else_left_alone(tmp_path: Path) -> None:
    text = (
        'weight_bonds = 2.5\n[run]\npart = "half_a"\nmolecules = 1000\nrate = 1\ncompile = false\n'
        "[network]\nlayers = 3"
    )
    config = load(GeneratorConfig, write(tmp_path / "a.toml", text))
    run = dataclasses.replace(Run(), part="half_a", molecules=1000, rate=1.0, compile=False)
    assert config == GeneratorConfig(run=run, network=VelocityConfig(layers=3), weight_bonds=2.5)
    assert type(config.run.rate) is float  # an int for a float is meant as one


def test_a_section_keeps_the_defaults_of_its_owner() -> None:
    """PropertyTraining's run differs from Run()'s own defaults."""
    config = build(PropertyTraining, {"run": {"seed": 4}})
    assert config.run == dataclasses.replace(PropertyTraining().run, seed=4)
    assert config.run.molecules != Run().molecules


@pytest.mark.parametrize(
    ("text", "named"),
    [("colour = 1", "colour"), ("[run]\nbatchsize = 3", "run.batchsize"), ("[network]\nlayer = 3", "network.layer"),
     ("[run]\nmolecules = 1.5", "run.molecules"), ("[run]\nmolecules = true", "run.molecules"),
     ("[run]\nrate = true", "run.rate"), ('[run]\nrate = "1e-3"', "run.rate"), ("[run]\npart = 3", "run.part"),
     ("[run]\ncompile = 1", "run.compile"), ("run = 3", "run"), ("[weight_bonds]\nx = 1", "weight_bonds"),
     ("[run]\nrate = [1.0]", "run.rate"), ("[run]\nseed = 2026-01-01", "run.seed")],
)
def test_a_wrong_setting_is_named(text: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GeneratorConfig, write(tmp_path / "a.toml", text))
    assert named in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", [{"part": "half_c"}, {"precision": "float16"}, {"weights": "int8"}])
def test_a_word_that_is_not_among_the_choices_is_refused(setting: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        build(GeneratorConfig, {"run": setting})


@pytest.mark.parametrize(("kind", "text", "words"), [
    (SignalConfig, "patch = 0", "network.patch"), (SignalConfig, "levels = 1000000", "network.levels"),
    (SignalConfig, "width = 3", "network.width"), (SignalConfig, "growth = inf", "network.growth"),
    (SignalConfig, "dims = 3", "network.dims"), (GeneratorConfig, "layers = -1", "network.layers"),
    (GeneratorConfig, "heads = 3", "network.scalars"), (PropertyTraining, "cutoff = nan", "network.cutoff"),
    (PropertyTraining, "radial_2 = 13", "network.radial_1 and radial_2"),
])
def test_sizes_that_no_network_can_have_are_refused(kind: type, text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        load(kind, write(tmp_path / "a.toml", f"[network]\n{text}"))


@pytest.mark.parametrize("content", [b"run = ", b"[run\n", b"\xff\xfe", b"a = 1\na = 2", b"a = " + b"[" * 9999,
                                     b"a = " + b"1" * 5000])
def test_what_is_not_toml_is_refused_with_the_files_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"odd\.toml"):
        load(GeneratorConfig, path)


def test_a_missing_file_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"none\.toml"):
        load(GeneratorConfig, tmp_path / "none.toml")


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers())
keys = st.sampled_from(["run", "network", "weight_bonds", "self_condition", "seed", "rate", "layers", "part", "x"])


@given(st.recursive(values, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=6))
@settings(max_examples=80)
def test_any_mapping_gives_settings_of_the_right_types_or_a_config_error(given_: object) -> None:
    try:
        config = build(GeneratorConfig, given_ if isinstance(given_, dict) else {"run": given_})
    except ConfigError:
        return
    for mine, default in ((config, GeneratorConfig()), (config.run, Run()), (config.network, VelocityConfig())):
        for f in dataclasses.fields(default):
            assert type(getattr(mine, f.name)) is type(getattr(default, f.name)), f.name


@given(st.text(max_size=60))
@settings(max_examples=60)
def test_any_text_is_read_or_refused_with_a_config_error(tmp_path_factory, text: str) -> None:
    path = tmp_path_factory.mktemp("toml") / "a.toml"
    path.write_text(text, encoding="utf-8", newline="")
    try:
        load(GeneratorConfig, path)
    except ConfigError as error:
        assert str(error)


@given(st.integers(64, 10**6), st.floats(1e-6, 1), st.sampled_from(["half_a", "half_b", "train"]), st.booleans())
@settings(max_examples=30)
def test_settings_survive_being_written_as_toml(tmp_path_factory, n: int, rate: float, part: str, on: bool) -> None:
    run = dataclasses.replace(Run(), molecules=n, rate=rate, part=part, compile=on)
    lines = [f'{k} = {str(v).lower() if isinstance(v, bool) else repr(v).replace(chr(39), chr(34))}'
             for k, v in dataclasses.asdict(run).items()]
    path = write(tmp_path_factory.mktemp("toml") / "a.toml", "[run]\n" + "\n".join(lines))
    assert load(GeneratorConfig, path).run == run


@pytest.mark.parametrize(("recipe", "kind", "part"), [
    ("generator", GeneratorConfig, "half_b"), ("generator-gpu", GeneratorConfig, "half_b"),
    ("guide", PropertyTraining, "half_b"), ("evaluator", PropertyTraining, "half_a")])
def test_recipes_keep_guide_and_evaluator_apart(recipe, kind, part):
    assert load(kind, recipe).run.part == part
