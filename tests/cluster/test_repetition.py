"""Of what mpirun says, only that is passed on which we do not say ourselves."""

import pytest

from mpiadv.cluster.repetition import without_repetition

RULER = "-" * 74 + "\n"
BOX = """\
--------------------------------------------------------------------------
prterun detected that one or more processes exited with non-zero status,
thus causing the job to be terminated. The first process to do so was:

   Process name: [prterun-node-4146@1,1]
   Exit code:    {code}
--------------------------------------------------------------------------
"""
ABORT_BOXES = """\
--------------------------------------------------------------------------
MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD
  Proc: [[11802,1],1]
  Errorcode: 1

NOTE: invoking MPI_ABORT causes Open MPI to kill all MPI processes.
You may or may not see output from other processes, depending on
exactly when Open MPI kills them.
--------------------------------------------------------------------------
--------------------------------------------------------------------------
prterun has exited due to process rank 1 with PID 0 on node vm calling
"abort". This may have caused other processes in the application to be
terminated by signals sent by prterun (as reported here).
--------------------------------------------------------------------------
"""
WARNING = f"{RULER}A warning of Open MPI.\n{RULER}"

LOSS_BOX = """\
--------------------------------------------------------------------------
prterun noticed that process rank 1 with PID 1928 on node vm exited on
signal 9 (Killed).
--------------------------------------------------------------------------
"""
LOSS = (
    "mpiadv: error: rank 1 on {host} was ended by signal 9 (Killed), and the job with it: go on "
    "with --resume; --fault-tolerant does without a lost attacker\n"
)
LONG_HOST = "a-host-whose-name-is-rather-long.cluster.example.org"

TEXTS = {
    "loss": (f"before\n{LOSS_BOX}after\n", f"before\n{LOSS.format(host='vm')}after\n"),
    "loss_on_a_host_of_a_long_name": (
        LOSS_BOX.replace("on node vm exited on\n", f"on node\n{LONG_HOST} exited on "),
        LOSS.format(host=LONG_HOST),
    ),
    "loss_in_other_words": (
        LOSS_BOX.replace("signal 9", "account of 9"),
        LOSS_BOX.replace("signal 9", "account of 9"),
    ),
    "bad_input": (f"one line\n{BOX.format(code=2)}", "one line\n"),
    "interrupted": (f"{BOX.format(code=75)}after\n", "after\n"),
    "abort": (f"a traceback\n{ABORT_BOXES}after\n", "a traceback\nafter\n"),
    "abort_with_a_line_between": (
        ABORT_BOXES.replace("prterun has", "a word of another rank\nprterun has"),
        f"{RULER}a word of another rank\n" + ABORT_BOXES[ABORT_BOXES.index("prterun has") :],
    ),
    "failure": (BOX.format(code=1), BOX.format(code=1)),
    "code_that_only_begins_with_2": (BOX.format(code=213), BOX.format(code=213)),
    "other_box": (WARNING, WARNING),
    "other_box_first": (WARNING + BOX.format(code=2), WARNING),
    "two_rulers": (RULER + BOX.format(code=2), RULER),
    "cut_short": (BOX[:200], BOX[:200]),
    "no_newline": ("progress 1\rprogress 2\r", "progress 1\rprogress 2\r"),
}


@pytest.mark.parametrize(
    ("given", "kept"), [pytest.param(*case, id=name) for name, case in TEXTS.items()]
)
def test_boxes_that_repeat_us_are_dropped_and_a_loss_is_told_in_a_line(
    given: str, kept: str
) -> None:
    lines = given.encode().splitlines(keepends=True)
    assert b"".join(without_repetition(lines)).decode() == kept


def test_only_a_rank_that_dies_of_a_request_is_no_news() -> None:
    def told(box: str, *, is_asked: bool) -> str:
        lines = box.encode().splitlines(keepends=True)
        return b"".join(without_repetition(lines, lambda: is_asked)).decode()

    of_request = LOSS_BOX.replace("9 (Killed)", "10 (User defined signal 1)")
    assert told(of_request, is_asked=True) == ""
    assert "was ended by signal 10 (User" in told(of_request, is_asked=False)
    assert told(LOSS_BOX, is_asked=True) == LOSS.format(host="vm")
