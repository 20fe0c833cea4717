"""The command line of reports."""

from mpiadv.command_lines.described import Described, flag, value, words

REPORT = Described(
    name="report",
    example="report FOLDER ...",
    summary="write a page of figures about runs, from their logs",
    about="Write a page of figures from the logs of runs: running, finished, interrupted or "
    "killed ones. It needs neither a network nor scripts to be read.",
    epilog="A page or figure that mpiadv report wrote is written over; any other file only with "
    "--overwrite.",
    words={"logs": words("+", "LOG_OR_RUN_FOLDER", "a log.h5, or a run's folder")},
    options={
        "--output": value(
            "PAGE", "the page; without it report.html, in the run's folder where one is given"
        ),
        "--figures": value("FOLDER", "also write each figure here, as PNG and as PDF"),
        "--overwrite": flag("write over files of other programs, too"),
    },
)

read = REPORT.read
