"""What a study is to the rest of the package: its runs, its scores, what it shows. Knows no one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mpiadv.studies.folder import StudyFolder
from mpiadv.studies.processes import Program
from mpiadv.studies.results import Results
from mpiadv.studies.runs import Request, Run
from mpiadv.studies.scores import Scoring


def _nothing_to_score(folder: StudyFolder) -> list[Scoring]:
    return []


def _nothing_to_run(folder: StudyFolder) -> list[Program]:
    return []


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study of `mpiadv study`.

    Attributes:
        runs: which it trains.
        show: its tables and figures, from logs and scores alone; it works with what is there, as
            runs may be missing, unfinished or interrupted.
        score: the attacks to make on the trained networks.
        evaluate: programs that evaluate trained networks, side by side, and keep what they found in
            the folder; those whose results are there are left out.
        measure: programs that measure speed and keep what they measured in the folder; those whose
            measurement is there are left out.
    """

    runs: Callable[[Request], Sequence[Run]]
    show: Callable[[StudyFolder], Results]
    score: Callable[[StudyFolder], Sequence[Scoring]] = _nothing_to_score
    evaluate: Callable[[StudyFolder], Sequence[Program]] = _nothing_to_run
    measure: Callable[[StudyFolder], Sequence[Program]] = _nothing_to_run
