"""The command line of watching."""

from mpiadv.command_lines.described import FLAG, Described
from mpiadv.command_lines.numbers import number

WATCH = Described(
    name="watch",
    example="watch FOLDER",
    summary="show a run in the terminal as it goes on",
    about="Show a run as it goes on, from its log alone. Ends when the run is done; a run that was "
    "interrupted or killed is waited for, as it may be resumed.",
    words={"log": {"metavar": "LOG_OR_RUN_FOLDER", "help": "a log.h5, or a run's folder"}},
    options={
        "--every": {
            "metavar": "SECONDS",
            "type": number(86_400),
            "help": "seconds between looks: 2 in a terminal, 10 where the output goes elsewhere "
            "and each look is a line",
        },
        "--once": {**FLAG, "help": "look once, and end"},
    },
)

read = WATCH.read
