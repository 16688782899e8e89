import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fast_style.config import (
    Config,
    ConfigError,
    DataConfig,
    LossConfig,
    StyleConfig,
    config_from_dict,
    config_from_stored,
    flatten,
    load_config,
    locate,
    to_dict,
)

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
MINIMAL = {"name": "wave", "style": {"image": "wave.jpg"}, "data": {"train": "photos"}}


def with_section(section: str, values: object) -> dict[str, object]:
    base = MINIMAL.get(section, {})
    merged = {**base, **values} if isinstance(base, dict) and isinstance(values, dict) else values
    return {**MINIMAL, section: merged}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def message_for(data: object) -> str:
    with pytest.raises(ConfigError) as caught:
        config_from_dict(data, source="a.yaml")  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_loads_under_its_file_name(path: Path) -> None:
    assert load_config(path).name == path.stem


def test_the_repository_ships_the_canonical_and_the_quickstart_config() -> None:
    assert {"wave", "quickstart"} <= {path.stem for path in CONFIGS}


def test_defaults_are_those_of_the_design() -> None:
    config = config_from_dict(MINIMAL)
    assert config.loss.network == "vgg16"
    assert config.loss.content_layers == {"relu2_2": 1, "relu3_3": 1}
    assert config.loss.style_layers == {"relu1_2": 1, "relu2_2": 2, "relu3_3": 2, "relu4_3": 0.5}
    assert (config.loss.strength, config.loss.tv_weight) == (1, 0.1)
    assert config.loss.padding == "replicate"
    assert config.network.num_residual_blocks == 5
    training = config.training
    assert (training.steps, training.batch_size, training.image_size) == (4000, 4, 256)
    assert (training.learning_rate, training.first_share) == (1e-3, 0.5)


def test_raw_weights_take_the_place_of_the_default_strength() -> None:
    raw = config_from_dict({**MINIMAL, "loss": {"style_weight": 3}})
    assert (raw.loss.strength, raw.loss.content_weight, raw.loss.style_weight) == (None, 1, 3)
    assert config_from_dict({**MINIMAL, "loss": {"tv_weight": 0}}).loss.strength == 1
    assert config_from_dict({**MINIMAL, "loss": {"strength": None}}).loss.strength is None
    with pytest.raises(ConfigError, match="takes the place of"):
        config_from_dict({**MINIMAL, "loss": {"style_weight": 3, "strength": 1}})


@pytest.mark.parametrize("term", ["grid_weight", "contrast_weight", "frame_weight"])
def test_a_term_that_is_weighed_for_a_strength_is_off_without_one(term: str) -> None:
    def weight(**loss: float | None) -> float:
        return getattr(config_from_dict({**MINIMAL, "loss": loss}).loss, term)

    assert weight() == weight(strength=2) == getattr(LossConfig(), term) > 0
    assert weight(style_weight=3) == weight(strength=None) == 0
    assert weight(**{term: 7}) == weight(content_weight=3, **{term: 7}) == 7
    stored = to_dict(config_from_dict(MINIMAL))
    assert config_from_stored(stored, source="a state") == config_from_dict(MINIMAL)
    del stored["loss"][term]
    assert getattr(config_from_stored(stored, source="a state").loss, term) == 0


def test_what_an_older_version_stored_keeps_its_meaning() -> None:
    stored = to_dict(config_from_dict({**MINIMAL, "loss": {"strength": 0.25, "padding": "zeros"}}))
    before = {**stored, "loss": {**stored["loss"], "strength": 0.5}}
    del before["loss"]["padding"]
    for data in (before, stored):
        assert to_dict(config_from_stored(data, source="a state")) == stored
    raw = {**before, "loss": {**before["loss"], "strength": None}}
    assert config_from_stored(raw, source="a state").loss.strength is None


def test_a_file_holds_only_what_differs_and_names_the_run(tmp_path: Path) -> None:
    path = write(tmp_path / "sea.yaml", "style: {image: s.jpg}\ndata: {train: p}\n")
    config = load_config(path)
    assert config == Config(
        name="sea", style=StyleConfig(image=Path("s.jpg")), data=DataConfig(train=(Path("p"),))
    )


def test_a_config_cannot_be_changed() -> None:
    config = config_from_dict(MINIMAL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), ("1e5", 1e5), ("1e10", 1e10), ("3", 3.0), ("0.5", 0.5)]
)
def test_numbers_that_yaml_reads_as_text_are_numbers(
    tmp_path: Path, text: str, value: float
) -> None:
    path = write(
        tmp_path / "a.yaml",
        f"style: {{image: s.jpg}}\ndata: {{train: p}}\nloss: {{tv_weight: {text}}}\n",
    )
    weight = load_config(path).loss.tv_weight
    assert weight == value
    assert isinstance(weight, float)


def test_a_whole_number_may_be_written_with_an_exponent() -> None:
    steps = config_from_dict(with_section("training", {"steps": "4e4"})).training.steps
    assert steps == 40_000
    assert isinstance(steps, int)


@pytest.mark.parametrize("seed", [0, 2**53 + 1, 2**63 - 1])
def test_a_large_whole_number_is_not_rounded(seed: int) -> None:
    assert config_from_dict(with_section("training", {"seed": seed})).training.seed == seed


def test_one_folder_is_a_list_of_one() -> None:
    assert config_from_dict(MINIMAL).data.train == (Path("photos"),)
    two = config_from_dict(with_section("data", {"train": ["a", "b"]}))
    assert two.data.train == (Path("a"), Path("b"))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("relu1_2", {"relu1_2": 1.0}),
        (["relu1_2", "relu2_2"], {"relu1_2": 1.0, "relu2_2": 1.0}),
        ({"relu1_2": "1e-1", "relu2_2": 2}, {"relu1_2": 0.1, "relu2_2": 2.0}),
    ],
)
def test_layers_are_a_name_a_list_or_a_mapping_to_weights(
    written: object, read: dict[str, float]
) -> None:
    config = config_from_dict(with_section("loss", {"style_layers": written}))
    assert config.loss.style_layers == read


@pytest.mark.parametrize(
    ("section", "values", "parts"),
    [
        ("training", {"lerning_rate": 1}, ["training.lerning_rate", "'learning_rate'"]),
        ("trainig", {}, ["trainig: unknown key", "'training'"]),
        ("loss", {"zzz": 1}, ["loss.zzz: unknown key", "known keys: network, weights"]),
        ("network", 3, ["network: is 3 (a whole number)", "expected 'key: value' lines"]),
        ("training", None, ["training: is empty", "expected 'key: value' lines"]),
        ("training", {"steps": "many"}, ["training.steps: is 'many'", "a whole number"]),
        ("training", {"steps": 1.5}, ["training.steps: is 1.5", "a whole number"]),
        ("training", {"steps": True}, ["training.steps: is True", "a whole number"]),
        ("training", {"steps": [1]}, ["training.steps: is [1] (a list)", "a whole number"]),
        (
            "training",
            {"mixed_sizes": [256, 16]},
            ["training.mixed_sizes: 16 is impossible", "at least 32"],
        ),
        ("training", {"steps": 0}, ["training.steps: 0 is impossible", "at least 1"]),
        ("training", {"learning_rate": 0}, ["training.learning_rate: 0.0", "above 0"]),
        ("training", {"learning_rate": "nan"}, ["training.learning_rate: is 'nan'", "a number"]),
        ("training", {"learning_rate": ".inf"}, ["training.learning_rate", "a number"]),
        ("training", {"learning_rate": float("inf")}, ["training.learning_rate", "a number"]),
        ("training", {"learning_rate": None}, ["training.learning_rate: is empty", "a number"]),
        ("training", {"image_size": 31}, ["training.image_size: 31", "at least 32"]),
        ("training", {"max_gradient_norm": 0}, ["training.max_gradient_norm: 0.0", "above 0"]),
        ("training", {"ema_decay": 1}, ["training.ema_decay: 1.0", "at most 0.999999"]),
        ("training", {"precision": "bf61"}, ["training.precision: 'bf61'", "'bf16'"]),
        ("training", {"schedule": 3}, ["training.schedule: 3 is not one of constant, cosine"]),
        ("training", {"seed": -1}, ["training.seed: -1", "at least 0"]),
        ("loss", {"network": "vgg61"}, ["loss.network: 'vgg61' is not one of", "did you mean"]),
        ("loss", {"network": ["vgg16"]}, ["loss.network: ['vgg16'] is not one of"]),
        ("loss", {"style_weight": -1}, ["loss.style_weight: -1.0", "at least 0"]),
        ("loss", {"style_layers": []}, ["loss.style_layers: is []", "[relu2_2]"]),
        ("loss", {"style_layers": 3}, ["loss.style_layers: is 3", "expected layer names"]),
        ("loss", {"style_layers": [["relu1_2"]]}, ["loss.style_layers", "expected layer names"]),
        ("loss", {"style_layers": [{"relu1_2": 1}]}, ["loss.style_layers", "{relu1_2: 1,"]),
        ("loss", {"style_layers": [None]}, ["loss.style_layers", "expected layer names"]),
        ("loss", {"style_layers": {"relu1_2": "x"}}, ["loss.style_layers.relu1_2", "a number"]),
        ("loss", {"style_layers": {"relu1_2": -1}}, ["loss.style_layers.relu1_2: -1.0"]),
        ("data", {"flip": "yes please"}, ["data.flip: is 'yes please'", "true or false"]),
        ("data", {"flip": 1}, ["data.flip: is 1", "true or false"]),
        ("data", {"min_crop": 0}, ["data.min_crop: 0.0", "above 0 and at most 1"]),
        ("data", {"min_crop": 1.5}, ["data.min_crop: 1.5", "above 0 and at most 1"]),
        ("data", {"train": []}, ["data.train: names no folder of photos"]),
        ("data", {"train": [None]}, ["data.train: is empty, expected a path"]),
        ("data", {"train": ""}, ["data.train: is ''", "expected a path"]),
        ("style", {"image": 3}, ["style.image: is 3", "expected a path"]),
        ("style", {"size": -1}, ["style.size: -1", "at least 0"]),
        ("name", 3, ["name: is 3", "expected text"]),
        ("name", "", ["name: ''", "a plain file name"]),
        ("data", {"description": None}, ["data.description: is empty", "expected text"]),
        ("data", {"description": 3}, ["data.description: is 3 (a whole number)", "expected text"]),
        ("name", "a/b", ["name: 'a/b'", "a plain file name"]),
        ("name", "..", ["name: '..'", "a plain file name"]),
        ("name", ".hidden", ["name: '.hidden'", "a plain file name"]),
    ],
)
def test_a_mistake_names_file_key_value_and_cure(
    section: str, values: object, parts: list[str]
) -> None:
    message = message_for(with_section(section, values))
    assert message.startswith("a.yaml: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        ({"data": {"train": "p"}, "name": "a"}, "a.yaml: style: is missing"),
        (
            {**MINIMAL, "style": {"size": 3}},
            "a.yaml: style.image: is missing: name one picture there, or several as style.images, "
            "{a.jpg: 2, b.jpg: 1}",
        ),
        ({**MINIMAL, "data": {}}, "a.yaml: data.train: is missing"),
    ],
)
def test_a_missing_key_is_named(data: dict[str, object], missing: str) -> None:
    assert message_for(data) == missing


def test_a_key_that_is_not_text_is_named() -> None:
    assert "a.yaml: 3: unknown key" in message_for({**MINIMAL, 3: 4})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("style: [", "not valid YAML"),
        ("style:\n\timage: x", "not valid YAML"),
        ("begun: 2024-13-45", "not valid YAML"),
        ("- a\n- b", "holds ['a', 'b'] (a list), not 'key: value' lines"),
        ("", "holds empty, not 'key: value' lines"),
        ("just words", "holds 'just words' (a text)"),
    ],
)
def test_a_file_that_is_not_a_config_is_one_line(tmp_path: Path, text: str, part: str) -> None:
    path = write(tmp_path / "a.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


HOLDS = "style: {image: a.jpg}\ndata: {train: photos}\n"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("loss: {strength: 2}\nloss: {tv_weight: 1}\n", "loss: is given twice, the second"),
        (
            "training:\n  steps: 5\n  'steps': 6\n",
            "second time in line 5",
        ),
        ("loss: " + "[" * 3000 + "]" * 3000, "not valid YAML"),
        ('name: "a\\nb"', "must be a plain file name"),
        ('name: "\\ud800"', "must be a plain file name"),
        ('name: "a\\0b"', "holds a NUL character"),
        ('loss: {weights: "a\\0b"}', "loss.weights: 'a\\x00b': holds a NUL character"),
        ("training: {steps: 1e30}", "at least 1 and at most 100000000"),
        ("training: {batch_size: 1e9}", "at most 65536"),
        ("training: {mixed_sizes: [64, 1e9]}", "at most 16384"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
            "c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c]\n"
            "e: &e [*d, *d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e]\n"
            "g: &g [*f, *f, *f, *f, *f, *f, *f, *f]\nh: &h [*g, *g, *g, *g, *g, *g, *g, *g]\n"
            "name: *h\n",
            "unknown key",
        ),
        ("name: &a [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]", "expected text"),
    ],
)
def test_what_a_slip_or_malice_wrote_is_one_short_line(
    tmp_path: Path, text: str, part: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(HOLDS + text)
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    assert part in str(raised.value)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 3000


def test_a_key_that_is_merged_from_elsewhere_may_be_given_once_more(tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    path.write_text(HOLDS + "loss: &a {tv_weight: 1, strength: 2}\ntraining: {steps: 5}\n")
    assert load_config(path, overrides=["loss={<<: {strength: 3}, strength: 4}"]).loss.strength == 4
    with pytest.raises(ConfigError, match=r"--set loss=.*strength: is given twice"):
        load_config(path, overrides=["loss={strength: 3, strength: 4}"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such config file"):
        load_config(tmp_path / "gone.yaml")


def test_a_folder_or_a_picture_is_no_config(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00")
    for path in (tmp_path, tmp_path / "a.jpg"):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config(path)


def test_overrides_win_and_are_read_as_yaml(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "style: {image: s}\ndata: {train: p}\ntraining: {steps: 3}\n")
    overrides = ["training.steps=7", "loss.style_layers=[relu1_1]", "name=b=c", "data.flip=false"]
    config = load_config(path, overrides=overrides)
    assert config.training.steps == 7
    assert config.loss.style_layers == {"relu1_1": 1.0}
    assert config.name == "b=c"
    assert not config.data.flip


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("training.steps", "--set training.steps: expected key=value"),
        ("=3", "--set =3: expected key=value"),
        ("name.x=3", "'name' has no keys below it"),
        ("training.steps=[", "the value is not valid YAML"),
        ("training.steps=2024-13-45", "the value is not valid YAML"),
        ("training.step=3", "did you mean 'steps'?"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, part: str) -> None:
    path = write(tmp_path / "a.yaml", "name: a\nstyle: {image: s}\ndata: {train: p}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides=[override])
    assert part in str(caught.value)


weights = st.floats(0, 1e12, allow_subnormal=False)
layers = st.dictionaries(st.sampled_from(["relu1_2", "relu2_2", "relu3_3"]), weights, min_size=1)
paths = st.lists(st.sampled_from(["a", "b/c", "~/d", "package:yaml/e"]), min_size=1)
sections = {
    "data": st.fixed_dictionaries(
        {"train": paths},
        optional={"validation": paths, "flip": st.booleans(), "workers": st.integers(0, 256)},
    ),
    "loss": st.fixed_dictionaries(
        {},
        optional={
            "network": st.sampled_from(["vgg16", "vgg19"]),
            "weights": st.none() | st.just("w.pth"),
            "style_layers": layers,
            "tv_weight": weights,
        },
    ),
    "training": st.fixed_dictionaries(
        {},
        optional={
            "steps": st.integers(1, 10**12),
            "learning_rate": st.floats(1e-12, 1e3),
            "max_gradient_norm": st.none() | st.floats(1e-6, 1e6),
            "seed": st.integers(0, 2**63 - 1),
        },
    ),
}


@given(st.fixed_dictionaries(sections))
def test_a_config_survives_the_way_through_plain_data_and_yaml(data: dict[str, object]) -> None:
    config = config_from_dict({"name": "a", "style": {"image": "s.jpg"}, **data})
    assert config_from_dict(to_dict(config)) == config
    text = yaml.safe_dump(to_dict(config), sort_keys=False)
    assert config_from_dict(yaml.safe_load(text)) == config


def test_plain_data_holds_no_paths_and_no_tuples() -> None:
    config = Config(
        name="a", style=StyleConfig(image=Path("s")), data=DataConfig(train=(Path("p"),))
    )
    data = to_dict(config)
    assert data["style"]["image"] == "s"
    assert data["data"]["train"] == ["p"]
    plain = {dict, list, str, int, float, bool, type(None)}
    assert {type(value) for value in flatten(data).values()} <= plain


def test_flatten_gives_dotted_keys_and_keeps_empty_mappings() -> None:
    assert flatten({"a": {"b": {"c": 1}}, "d": {}}) == {"a.b.c": 1, "d": {}}


def test_locate_finds_a_file_inside_an_installed_package() -> None:
    found = locate(Path("package:yaml/__init__.py"), key="data.train")
    assert found == Path(yaml.__file__)


def test_locate_expands_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert locate(Path("~/photos"), key="data.train") == tmp_path / "photos"
    assert locate(Path("photos"), key="data.train") == Path("photos")


@pytest.mark.parametrize("package", ["no_such_package_here", "not-a-name", "", "a.b"])
def test_locate_names_the_key_and_the_package_that_is_not_installed(package: str) -> None:
    with pytest.raises(ConfigError) as caught:
        locate(Path(f"package:{package}/x.jpg"), key="data.train")
    assert f"data.train: package:{package}/x.jpg" in str(caught.value)
    assert "pip install" in str(caught.value)
