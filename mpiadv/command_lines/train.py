"""The command line of training."""

from mpiadv.command_lines.described import TRUST_HELP, TRUST_OPTION, CommandLine


def parser() -> CommandLine:
    """The command line."""
    described = CommandLine(
        prog="mpiadv",
        elsewhere={
            **dict.fromkeys(("-n", "-np", "--np", "-c"), "mpiadv launch -n 4 CONFIG"),
            "--fault-tolerant": "mpiadv launch -n 4 --fault-tolerant CONFIG",
        },
        description="Train a robust classifier. Rank 0 trains, all other ranks craft attacks.",
        epilog="Exit codes: 0 done, 2 bad input, 75 interrupted (--resume goes on from the "
        "last checkpoint), 1 failed.",
    )
    described.add_argument(
        "config", nargs="?", metavar="CONFIG", help="YAML file; without one, the digits defaults"
    )
    described.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="settings, as section.key=value"
    )
    described.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint, if there is one"
    )
    described.add_argument(
        "--print-config", action="store_true", help="print the resolved configuration and end"
    )
    described.add_argument(TRUST_OPTION, action="store_true", help=TRUST_HELP)
    return described
