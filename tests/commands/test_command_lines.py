"""Before anything is loaded, what is no command line is refused, and a question answered."""

from importlib.metadata import version

import pytest

from mpiadv import cli
from mpiadv.command_lines import evaluate, tables
from mpiadv.command_lines.commands import COMMANDS
from mpiadv.evaluation.attack_specs import KINDS
from mpiadv.evaluation.protocols import PROTOCOLS
from mpiadv.studies.presets import PRESETS
from mpiadv.studies.studies import STUDIES

FIRST = "launch: expected the number of ranks first: mpiadv launch -n 4 CONFIG"
NUMBER = "launch: -n {}: expected a number of ranks, 1 or more: mpiadv launch -n 4 CONFIG"
ALONE = (
    "launch: {0} is no work for several ranks: say mpiadv {0} by itself; ranks train, or evaluate"
)
MEANT = "no command {}: did you mean mpiadv {}?"
UNKNOWN = "unrecognized arguments: {}: did you mean {}? See mpiadv --help"

REFUSED = {
    "launch": FIRST,
    "launch a.yaml": FIRST,
    "launch -n": FIRST,
    "launch -n4": FIRST,
    "launch --np 4": FIRST,
    **{
        f"launch -n {word}": NUMBER.format(word)
        for word in ("all", "-1", "0", "²", "1e3", 5000 * "9")
    },
    **{
        f"launch -n 2 {name} x": ALONE.format(name)
        for name in ("plan", "report", "watch", "study", "submit", "job", "launch")
    },
    "evalute runs/digits": MEANT.format("evalute", "evaluate"),
    "Evaluate runs/digits": MEANT.format("Evaluate", "evaluate"),
    "launhc -n 2": MEANT.format("launhc", "launch"),
    "trian a.yaml": MEANT.format("trian", "CONFIG, which trains"),
    "version": MEANT.format("version", "--version"),
    "launch -n 2 evalute": MEANT.format("evalute", "launch -n 2 evaluate"),
    "launch -n 2 train": MEANT.format("train", "launch -n 2 CONFIG, which trains"),
    "--resum": UNKNOWN.format("--resum", "--resume"),
    "a.yaml --print-confg=1": UNKNOWN.format("--print-confg=1", "--print-config"),
    "launch -n 2 --resum": UNKNOWN.format("--resum", "--resume"),
    "-n 4 a.yaml": UNKNOWN.format("-n", "mpiadv launch -n 4 CONFIG"),
    "--fast": "unrecognized arguments: --fast: see mpiadv --help",
    "evaluate runs/digits --attak pgd": "evaluate: unrecognized arguments: --attak pgd: "
    "did you mean --attack? See mpiadv evaluate --help",
    "launch -n 2 evaluate": "evaluate: the following arguments are required: "
    "CHECKPOINT|KEY=VALUE: see mpiadv evaluate --help",
    "plan --rank 3": "plan: unrecognized arguments: --rank: did you mean --ranks? See mpiadv plan "
    "--help",
    "plan --ranks 2,1000000": "plan: argument --ranks: 1000000: expected at least 1, and at "
    "most 1,024: see mpiadv plan --help",
    "plan --ranks": "plan: argument --ranks: expected one argument: see mpiadv plan --help",
    "report": "report: the following arguments are required: LOG_OR_RUN_FOLDER: see mpiadv report "
    "--help",
    "report a --figure b": "report: unrecognized arguments: --figure b: did you mean --figures? "
    "See mpiadv report --help",
    "watch a --evry 2": "watch: unrecognized arguments: --evry 2: did you mean --every? See mpiadv "
    "watch --help",
    "study powr --preset smoke": "study: argument NAME: unknown study 'powr': did you mean "
    "'power'? Known: headline, methods, mixture, power, speedup, staleness, transfer: see mpiadv "
    "study --help",
    "submit --gpu 2": "submit: unrecognized arguments: --gpu: did you mean --gpus? See mpiadv "
    "submit --help",
    "submit": "submit: expected --gpus N, the GPUs of each node, or on CPUs alone --ranks N",
    "launch -n 4 a.yaml --trainers": "launch: --trainers: expected one number of ranks that train, "
    "as in mpiadv launch -n 4 --trainers 2 CONFIG",
    "launch -n 4 --trainer 2 a.yaml": "launch: no option --trainer: did you mean --trainers? See "
    "mpiadv launch --help",
    "launch -n 4 a.yaml --fault_tolerant": "launch: no option --fault_tolerant: did you mean "
    "--fault-tolerant? See mpiadv launch --help",
    "launch -n 4 --trainers two a.yaml": "launch: --trainers two: expected one number of ranks "
    "that train, as in mpiadv launch -n 4 --trainers 2 CONFIG",
    "launch -n 4 --trainers=2 a.yaml --trainers 4": "launch: --trainers 2 4: expected one number "
    "of ranks that train, as in mpiadv launch -n 4 --trainers 2 CONFIG",
    "launch -n 2 --trainers 2 evaluate runs/a": "launch: --trainers is for training: leave it out, "
    "evaluations share images",
    "submit --gpus 2 --trainers 0": "submit: argument --trainers: 0: expected at least 1, and at "
    "most 1,024: see mpiadv submit --help",
    "job seed=1 --resum": "unrecognized arguments: --resum: did you mean --resume? See mpiadv "
    "--help",
    "job study power": "study: the following arguments are required: --preset: see mpiadv study "
    "--help",
}


@pytest.mark.parametrize("line", [pytest.param(line, id=line[:40]) for line in REFUSED])
def test_what_is_no_command_line_is_refused_in_one_line_before_anything_is_loaded(
    calls: list[tuple[str, object]], capsys: pytest.CaptureFixture[str], line: str
) -> None:
    assert cli.main(line.split()) == 2
    assert calls == []
    assert capsys.readouterr() == ("", f"mpiadv: error: {REFUSED[line]}\n")


EMPTY = {
    "train": ([""], "there is an empty word"),
    "train_behind": (["a.yaml", ""], "there is an empty word behind 'a.yaml'"),
    "launch": (["launch", "-n", "2", ""], "there is an empty word"),
    "evaluate": (["evaluate", ""], "evaluate: there is an empty word"),
    "evaluate_option": (
        ["evaluate", "runs/a", "--output", ""],
        "evaluate: there is an empty word behind '--output'",
    ),
    "plan_option": (["plan", "--ranks="], "plan: there is an empty word behind '--ranks='"),
    "report": (["report", ""], "report: there is an empty word"),
    "watch": (["watch", ""], "watch: there is an empty word"),
    "study": (["study", "", "--preset", "smoke"], "study: there is an empty word"),
    "submit": (["submit", "", "--gpus", "2"], "submit: there is an empty word"),
}


@pytest.mark.parametrize(("words", "told"), EMPTY.values(), ids=EMPTY)
def test_empty_word_is_refused_and_not_passed_over(
    calls: list[tuple[str, object]],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    told: str,
) -> None:
    assert cli.main(words) == 2
    assert calls == []
    line = f"mpiadv: error: {told}: is a variable of the shell not set? See mpiadv"
    assert capsys.readouterr().err.startswith(line)


ANSWERS = {
    "--help": "usage: mpiadv [CONFIG] [key.subkey=value ...]",
    "-h": "  mpiadv launch -n 8 CONFIG   train on 8 ranks",
    "--version": f"mpiadv {version('mpiadv')}",
    "launch --help": "usage: mpiadv launch -n RANKS [--trainers N] [--fault-tolerant] [CONFIG]",
    "launch -n 2 a.yaml --help": "usage: mpiadv launch -n RANKS [--trainers N] [--fault-tolerant]",
    "launch -n 2 evaluate --help": "usage: mpiadv evaluate [-h] [--attack",
    "a.yaml --help": "usage: mpiadv [-h] [--resume]",
    "plan --help": "usage: mpiadv plan [-h] [--ranks N,N,...]",
    "evaluate --help": "usage: mpiadv evaluate [-h] [--attack",
    "report --help": "usage: mpiadv report [-h] [--output PAGE]",
    "watch --help": "usage: mpiadv watch [-h] [--every SECONDS]",
    "study --help": "usage: mpiadv study [-h] --preset smoke|small|paper",
    "submit --help": "usage: mpiadv submit [-h] [--gpus N]",
    "job --help": "usage: mpiadv job [--chain SCRIPT]",
    "job study --help": "usage: mpiadv study",
}


@pytest.mark.parametrize("line", ANSWERS)
def test_question_is_answered_before_anything_is_loaded(
    calls: list[tuple[str, object]], capsys: pytest.CaptureFixture[str], line: str
) -> None:
    assert cli.main(line.split()) == 0
    assert calls == []
    assert ANSWERS[line] in capsys.readouterr().out


def test_help_names_the_attacks_and_studies_that_there_are() -> None:
    assert tuple(KINDS) == evaluate.ATTACKS
    assert tuple(PROTOCOLS) == evaluate.PROTOCOLS
    assert list(STUDIES) == list(tables.STUDIES)
    assert tuple(PRESETS) == tables.PRESETS


def test_help_of_all_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert [name for name in COMMANDS if f"  mpiadv {name} " not in told] == []


NUMBERS = [
    (
        "plan",
        "--ranks",
        "1000000",
        "argument --ranks: 1000000: expected at least 1, and at most 1,024",
    ),
    ("plan", "--ranks", "2,x", "argument --ranks: x is no whole number"),
    ("plan", "--ranks-per-host", "0", "0: expected at least 1, and at most 1,024"),
    ("plan", "--bandwidth", "1e300", "1e300: expected more than 0, and at most 1,000,000"),
    ("plan", "--latency", "nan", "nan: expected 0 or more, and at most 1,000,000"),
    ("evaluate", "--samples", "9" * 5000, "expected at least 1, and at most 1,000,000,000"),
    ("evaluate", "--samples", "²", "² is no whole number"),
    ("evaluate", "--samples", "1.0", "1.0 is no whole number"),
    ("study", "--jobs", "100000", "100000: expected at least 1, and at most 10,000"),
    ("study", "--share", "²/3", "argument --share: ²/3: expected I/N, from 1/N to N/N"),
    ("submit", "--gpus", "1_0", "1_0 is no whole number"),
    ("submit", "--nodes", "10000000", "10000000: expected at least 1, and at most 1,000,000"),
    ("watch", "--every", "1e9", "1e9: expected more than 0, and at most 86,400"),
]


@pytest.mark.parametrize(("command", "option", "value", "line"), NUMBERS)
def test_number_of_an_option_has_bounds(
    capsys: pytest.CaptureFixture[str], command: str, option: str, value: str, line: str
) -> None:
    words = {"study": ["power", "--preset", "smoke"], "watch": ["."], "evaluate": ["."]}
    assert cli.main([command, *words.get(command, []), option, value]) == 2
    told = capsys.readouterr().err
    assert line in told and told.count("\n") == 1 and len(told) < 300
