"""Names become functions: registered ones, and a user's by dotted name."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpiadv.process.errors import UserError, user_code
from mpiadv.settings.registry import find_registered, import_dotted, is_dotted

REGISTERED = {"pgd": len, "fgsm": max}


def test_registered_name_gives_its_function() -> None:
    assert find_registered("attack", "fgsm", REGISTERED) is max


@pytest.mark.parametrize("name", ["pgdd", "", "PGD", "zzzz"])
def test_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UserError) as caught:
        find_registered("attack", name, REGISTERED)
    assert f"unknown attack {name!r}: did you mean " in str(caught.value)
    assert str(caught.value).endswith("Known: fgsm, pgd")


@pytest.mark.parametrize(
    ("name", "dotted"),
    [("package.module:function", True), ("pgd", False), ("torchvision:resnet18", False)],
)
def test_only_a_users_function_is_dotted(name: str, dotted: bool) -> None:
    assert is_dotted(name) is dotted


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, and a search path and modules that are put back afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_module_in_the_working_folder_is_found(user_folder: Path) -> None:
    (user_folder / "their_models.py").write_text("def net(): return 'theirs'\n")
    assert import_dotted("model", "their_models:net")() == "theirs"


BAD_MODULES = {
    "missing_module": (None, "bad_module:net", "cannot import 'bad_module': ModuleNotFoundError"),
    "failing_module": ("1 / 0", "bad_module:net", "cannot import 'bad_module': ZeroDivisionError"),
    "syntax_error": ("def", "bad_module:net", "cannot import 'bad_module': SyntaxError"),
    "leaves": (
        "import sys\nsys.exit(3)",
        "bad_module:net",
        "cannot import 'bad_module': it ends the program with SystemExit: 3 (at bad_module.py:2)",
    ),
    "parses_arguments": (
        "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--epochs', "
        "required=True)\nparser.parse_args([])",
        "bad_module:net",
        "cannot import 'bad_module': it ends the program with SystemExit: 2 (at bad_module.py:4)",
    ),
    "interrupts": (
        "def __getattr__(name): raise GeneratorExit",
        "bad_module:net",
        "cannot import "
        "'bad_module': it ends the program with GeneratorExit: no message (at bad_module.py:1)",
    ),
    "missing_function": ("", "bad_module:net", "module 'bad_module' has no function 'net'"),
    "not_a_function": ("net = 3", "bad_module:net", "module 'bad_module' has no function 'net'"),
    "no_function_named": ("", "bad_module:", "module 'bad_module' has no function ''"),
    "no_module_named": ("", ":net", "cannot import ''"),
}


@pytest.mark.parametrize(
    ("source", "name", "line"), [pytest.param(*case, id=key) for key, case in BAD_MODULES.items()]
)
def test_bad_dotted_name_is_refused_with_the_reason(
    user_folder: Path,
    capfd: pytest.CaptureFixture[str],
    source: str | None,
    name: str,
    line: str,
) -> None:
    if source is not None:
        (user_folder / "bad_module.py").write_text(source)
    with pytest.raises(UserError) as caught:
        import_dotted("model", name)
    assert str(caught.value).startswith(f"model {name!r}: {line}")
    assert capfd.readouterr() == ("", "")


def test_what_a_module_says_on_import_is_said_and_streams_that_it_took_work_on(
    user_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (user_folder / "talks.py").write_text(
        "import sys\nprint('hello', file=sys.stderr)\ntaken = sys.stderr\n"
        "def net(): print('later', file=taken, flush=True)\n"
    )
    net = import_dotted("model", "talks:net")
    assert capsys.readouterr().err == "hello\n"
    net()
    assert capsys.readouterr().err == "later\n"


def test_ctrl_c_ends_users_code_only_where_somebody_listens() -> None:
    def interrupted() -> None:
        with user_code("data set 'mine:data'"):
            raise KeyboardInterrupt

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        signal.signal(signal.SIGINT, lambda number, frame: None)
        with pytest.raises(UserError, match=r"^data set 'mine:data': it ends the program with Key"):
            interrupted()
    finally:
        signal.signal(signal.SIGINT, handler)
