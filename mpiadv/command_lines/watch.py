"""The command line of watching."""

from mpiadv.command_lines.described import Described, flag, value
from mpiadv.command_lines.numbers import number

WATCH = Described(
    name="watch",
    example="watch FOLDER",
    summary="show a run in the terminal as it goes on",
    about="Show a run as it goes on, from its log alone. Ends when the run is done; a run that was "
    "interrupted or killed is waited for, as it may be resumed.",
    words={"log": value("LOG_OR_RUN_FOLDER", "a log.h5, or a run's folder")},
    options={
        "--every": value(
            "SECONDS",
            "seconds between looks: 2 in a terminal, 10 where the output goes elsewhere and each "
            "look is a line",
            number(86_400),
        ),
        "--once": flag("look once, and end"),
    },
)

read = WATCH.read
