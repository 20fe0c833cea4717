"""The configuration: what is read, refused in one line, written back, and counted as the same."""

import os
from pathlib import Path
from typing import Any

import pytest

from mpiadv.process.errors import UserError
from mpiadv.settings import Config, dump_config, load_config, parse_config

REFUSED = {
    "unknown_section": (
        {"trainin": {}},
        "unknown setting trainin: the nearest known one is training",
    ),
    "unknown_key": (
        {"training": {"num_stps": 3}},
        "unknown setting training.num_stps: the nearest known one is training.num_steps",
    ),
    "unknown_key_that_is_no_text": ({3: 4}, "unknown setting 3"),
    "value_for_a_section": (
        {"training": 5},
        "training=5: expected a section of settings, not one value",
    ),
    "text_for_a_number": (
        {"training": {"num_steps": "many"}},
        "training.num_steps='many': expected a whole number",
    ),
    "zero_steps": (
        {"training": {"num_steps": 0}},
        "training.num_steps=0: input should be greater than or equal to 1",
    ),
    "negative_epsilon": ({"attack": {"epsilon": -1}}, "attack.epsilon=-1: "),
    "epsilon_not_a_number": (
        {"attack": {"epsilon": float("nan")}},
        "attack.epsilon=nan: input should be a finite number",
    ),
    "fraction_above_one": ({"objective": {"clean_fraction": 1.5}}, "objective.clean_fraction=1.5"),
    "unknown_norm": (
        {"attack": {"norm": "l3"}},
        "attack.norm='l3': input should be 'linf', 'l2' or 'l1'",
    ),
    "mean_without_std": (
        {"model": {"mean": [0.5]}},
        "model.mean and model.std go together: give both or neither",
    ),
    "average_that_never_moves": (
        {"average": {"decay": 1}},
        "average.decay=1: input should be less than 1",
    ),
    "average_that_is_none": (
        {"average": {"decay": 0}},
        "average.decay=0: input should be greater than 0",
    ),
    "average_that_never_begins": (
        {"average": {"warmup_fraction": 2}},
        "average.warmup_fraction=2: input should be less than or equal to 1",
    ),
    "zero_std": ({"model": {"mean": [0.5], "std": [0.0]}}, "model.std=0.0: "),
    "versions_too_rare": (
        {"staleness": {"publish_every": 100, "max_staleness": 32, "final_staleness": 32}},
        "publish_every=100 cannot hold final_staleness=32: use publish_every <= 33",
    ),
    "fresh_batches_between_two_versions": (
        {"log": {"fresh_every": 9}, "staleness": {"publish_every": 2}},
        "log.fresh_every=9 is no multiple of staleness.publish_every=2: use 8 or 10",
    ),
    "fresh_batches_more_often_than_versions": (
        {"log": {"fresh_every": 1}},
        "log.fresh_every=1 is no multiple of staleness.publish_every=2: use 2",
    ),
    "more_steps_by_the_trainer_than_there_are": (
        {"staleness": {"trainer_steps": 100}},
        "staleness.trainer_steps=100 is more than the attack's 8 steps: use "
        "staleness.trainer_steps <= 8",
    ),
    "steps_by_the_trainer_of_an_attack_that_has_one": (
        {"staleness": {"trainer_steps": 2}, "attack": {"num_steps": 1}},
        "staleness.trainer_steps=2 is more than the attack's 1 step: use "
        "staleness.trainer_steps <= 1",
    ),
    "final_above_max": (
        {"staleness": {"max_staleness": 4, "final_staleness": 5}},
        "final_staleness=5 exceeds max_staleness=4",
    ),
}


@pytest.mark.parametrize(
    ("tree", "line"), [pytest.param(*case, id=name) for name, case in REFUSED.items()]
)
def test_bad_setting_is_refused_in_one_line_that_names_it(tree: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_config(tree)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_first_of_several_bad_settings_is_told_and_the_others_are_named() -> None:
    with pytest.raises(
        UserError, match=r"^attack\.epsilon=-1: .* \(also wrong: training\.num_steps\)$"
    ):
        parse_config({"training": {"num_steps": 0}, "attack": {"epsilon": -1}})


BAD_FILES = {
    "the_same_key_twice": (
        b"seed: 1\nseed: 2\n",
        "line 2, column 1: the key 'seed' is there twice",
    ),
    "in_a_section": (b"attack:\n  norm: l2\n  norm: linf\n", "the key 'norm' is there twice"),
    "reference": (b"seed: &s 1\nattack: {num_steps: *s}\n", "references (& and *) are not taken"),
    "laughs": (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "references (& and *)"),
    "tab": (b"attack:\n\tnorm: l2\n", "line 2, column 1: found character"),
    "deep": (b"data: {arguments: {a: " + b"[" * 5000, "more than 32 levels"),
    "many_digits": (b"seed: " + b"1" * 5000, "is not valid YAML: Exceeds the limit"),
    "huge": (b"# " + b"x" * 2**19, "it has more than 262,144 bytes"),
    "nul": (b'output: "a\\0b"\n', "a character that is none"),
    "half_a_pair": (b'output: "\\ud800"\n', "a character that is none"),
    "a_set": (b"data: {arguments: {a: !!set {x}}}\n", "could not determine a constructor"),
    "broken_yaml": (b"training: [1, 2", "is not valid YAML"),
    "not_text": (b"\xff\xfe\x00", "is not valid YAML"),
    "a_list": (b"- 1\n- 2\n", "expected a mapping of settings, found list"),
    "python_object": (b"output: !!python/object/apply:os.getcwd []", "is not valid YAML"),
}


@pytest.mark.parametrize(
    ("content", "line"), [pytest.param(*case, id=name) for name, case in BAD_FILES.items()]
)
def test_file_that_holds_no_settings_is_refused_by_name(
    tmp_path: Path, content: bytes, line: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert str(path) in str(caught.value) and line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "pipe" if kind == "pipe" else Path("/dev/zero")
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(UserError, match=r"cannot read configuration .*: it is no plain file"):
        load_config(path)


def test_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read configuration .*none\.yaml: No such file"):
        load_config(tmp_path / "none.yaml")


def test_misspelt_file_is_told_with_the_near_one(tmp_path: Path) -> None:
    (tmp_path / "mnist.yaml").touch()
    with pytest.raises(UserError, match=r"minst\.yaml: No such .*: did you mean .*/mnist\.yaml\?$"):
        load_config(tmp_path / "minst.yaml")


def test_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_config(tmp_path / "empty.yaml") == load_config(None) == Config()


def test_override_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("training: {num_steps: 5}\nattack: {epsilon: 0.1}\n")
    config = load_config(path, ["training.num_steps=7", "data.arguments.folder=a=b"])
    assert config.training.num_steps == 7
    assert config.attack.epsilon == 0.1
    assert config.data.arguments == {"folder": "a=b"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("null", None, id="null"),
        pytest.param("", None, id="empty"),
        pytest.param("5e-2", 0.05, id="exponent_without_point"),
        pytest.param("1", 1.0, id="integer"),
    ],
)
def test_override_reads_a_number_as_people_write_it(text: str, value: float | None) -> None:
    assert load_config(None, [f"attack.step_size={text}"]).attack.step_size == value


NAMES = {
    "number": ("12345", "12345"),
    "comment": ("runs/a #1", "runs/a #1"),
    "mapping": ("runs/a: b", "runs/a: b"),
    "truth": ("true", "true"),
    "spaces": (" a  b ", "a  b"),
    "quoted": ("'runs/a #1'", "runs/a #1"),
}


@pytest.mark.parametrize(("text", "name"), NAMES.values(), ids=NAMES)
def test_override_takes_a_name_as_it_stands(text: str, name: str) -> None:
    assert load_config(None, [f"output={text}"]).output == name


def test_override_takes_no_name_as_none() -> None:
    assert load_config(None, ["data.root=null"]).data.root is None


def test_folder_with_a_line_feed_is_refused_and_not_folded() -> None:
    with pytest.raises(UserError, match="has a control character"):
        load_config(None, ["output=a\nb"])


BAD_OVERRIDES = {
    "no_equals_sign": ("training.num_steps", "expected key.subkey=value"),
    "no_key": ("=3", "expected key.subkey=value"),
    "value_is_no_yaml": ("seed=[", "is not a valid YAML value"),
    "below_a_value": ("data.root.folder=3", "data.root={'folder': 3}"),
    "empty_name": ("data..root=3", "expected names between dots"),
    "too_deep": ("data.arguments" + ".a" * 40 + "=3", "expected names between dots"),
    "key_twice_in_its_value": ("data.arguments={a: 1, a: 2}", "the key 'a' is there twice"),
    "unknown": ("data.rot=3", "unknown setting data.rot: the nearest known one is data.root"),
}


@pytest.mark.parametrize(
    ("override", "line"), [pytest.param(*case, id=name) for name, case in BAD_OVERRIDES.items()]
)
def test_bad_override_is_refused(override: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(None, [override])
    assert line in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(["seed=1", "seed=1"], id="the_same"),
        pytest.param(["attack.epsilon=0.1", "attack={num_steps: 3}"], id="a_section_undoes_it"),
    ],
)
def test_setting_given_twice_is_refused(overrides: list[str]) -> None:
    with pytest.raises(UserError, match="set the same: give one of them"):
        load_config(None, overrides)
    assert load_config(None, ["attack={num_steps: 3}", "attack.epsilon=0.1"]).attack.num_steps == 3


PIXELS = ("attack.epsilon", "attack.step_size", "evaluation.step_size")


@pytest.mark.parametrize("key", PIXELS)
@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("'4 / 255'", 4 / 255), ("1/2", 0.5), ("1", 1.0)]
)
def test_pixels_are_taken_as_fractions_and_kept_as_numbers(
    tmp_path: Path, key: str, text: str, value: float
) -> None:
    section, name = key.split(".")
    (tmp_path / "some.yaml").write_text(f"{section}: {{{name}: {text}}}\n")
    for config in (load_config(tmp_path / "some.yaml"), load_config(None, [f"{key}={text}"])):
        assert config.model_dump(mode="json")[section][name] == value
        assert f"{name}: {value}\n" in dump_config(config)


@pytest.mark.parametrize("key", PIXELS)
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("8", "=8: pixels are in [0, 1]: is 8/255 meant?"),
        ("1.5", "=1.5: pixels are in [0, 1]: is 1.5/255 meant?"),
        ("1000", "=1000: pixels are in [0, 1]: expected at most 1"),
        ("8/0", "='8/0': expected a number of pixels in [0, 1], or a fraction such as 8/255"),
        ("8/2/5", "='8/2/5': expected a number of pixels"),
        ("-8/255", "='-8/255': input should be greater than"),
    ],
)
def test_lengths_that_are_no_pixels_of_0_to_1_are_refused(key: str, text: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(None, [f"{key}={text}"])
    assert str(caught.value).startswith(f"{key}{line}")
    assert "\n" not in str(caught.value)


def test_override_below_a_value_of_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("attack: 3\n")
    with pytest.raises(UserError, match="attack is a value, not a section"):
        load_config(path, ["attack.epsilon=0.1"])


def test_written_configuration_reads_back_equal(tmp_path: Path) -> None:
    config = load_config(None, ["optimizer.betas=[0.5, 0.9]", "attack.step_size=0.1", "seed=3"])
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load_config(path) == config


def test_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().training.num_steps = 3  # type: ignore[misc]


IDENTITY = {
    "seed=1": True,
    "data.batch_size=32": True,
    "data.train_samples=100": True,
    "model.arguments.width=3": True,
    "attack.epsilon=0.2": True,
    "objective.clean_fraction=0.5": True,
    "optimizer.learning_rate=0.1": True,
    "schedule.name=constant": True,
    "staleness.max_staleness=20": True,
    "staleness.mode=bounded": True,
    "training.num_steps=401": True,
    "training.precision=bfloat16": True,
    "training.wire_dtype=float16": True,
    "output=elsewhere": False,
    "deadline_seconds=5": False,
    "data.root=elsewhere": False,
    "staleness.outstanding=3": False,
    "staleness.trainer_crafts=false": False,
    "training.device=cpu": False,
    "evaluation.every_steps=7": False,
    "log.flush_seconds=1": False,
    "checkpoint.keep=5": False,
}


@pytest.mark.parametrize(
    ("override", "decides"), [pytest.param(*case, id=case[0]) for case in IDENTITY.items()]
)
def test_identity_changes_only_with_what_decides_the_trained_model(
    override: str, decides: bool
) -> None:
    changed = load_config(None, [override])
    assert changed != Config()
    assert (changed.identity() != Config().identity()) == decides


def test_home_stands_in_the_output_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert load_config(None, ["output=~/x"]).output == "/home/me/x"
    with pytest.raises(UserError, match=r"^output=~nobody-at-all/x: nobody knows whose home"):
        load_config(None, ["output=~nobody-at-all/x"])
