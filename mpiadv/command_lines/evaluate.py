"""The command line of evaluation."""

from collections.abc import Mapping
from typing import Any

from mpiadv.command_lines.described import TRUST_HELP, TRUST_OPTION, CommandLine
from mpiadv.command_lines.numbers import whole

ATTACKS = (
    "fgsm", "pgd", "cw", "apgd-ce", "apgd-t", "fab-t", "square", "autoattack", "grid",
)  # fmt: skip
PROTOCOLS = ("madry", "fast", "trades", "deat", "autoattack")
"""Told by the help, which loads no attack; a test compares them with those that there are."""


def parser() -> CommandLine:
    """The command line."""
    described = CommandLine(
        prog="mpiadv evaluate",
        description="Attack trained networks and say how many images withstand.",
        epilog=f"Attacks: {', '.join(ATTACKS)}. Protocols: {', '.join(PROTOCOLS)}. Without any of "
        "them, PGD as the run's own evaluation. Exit codes: 0 done, 2 bad input, 1 failed.",
    )
    described.add_argument(
        "words",
        nargs="+",
        metavar="CHECKPOINT|KEY=VALUE",
        help="a run's folder, its checkpoint-NUMBER.pt, or a state dict (.pt) with model.name=... "
        "data.name=...; and settings, as section.key=value",
    )
    for option, settings in _OPTIONS.items():
        described.add_argument(option, **settings)
    return described


_REPEATED: Mapping[str, Any] = {"action": "append", "default": []}
_FLAG: Mapping[str, Any] = {"action": "store_true"}

_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "--attack": {
        **_REPEATED,
        "metavar": "NAME[:KEY=VALUE,...]",
        "help": "for example pgd:steps=100,restarts=20,epsilon=0.3,loss=margin; may be repeated",
    },
    "--protocol": {
        **_REPEATED, "metavar": "NAME", "help": "the attacks of a paper; may be repeated",
    },
    "--each-alone": {
        **_FLAG, "help": "start each attack from all images, not from what others left standing",
    },
    "--samples": {
        "type": whole(1, 10**9), "metavar": "N", "help": "only N test images, the same N always",
    },
    "--transfer-from": {
        **_REPEATED,
        "metavar": "CHECKPOINT",
        "help": "run the gradient attacks also with images crafted on this network",
    },
    "--output": {"metavar": "FOLDER", "help": "for the results; without it, beside CHECKPOINT"},
    "--overwrite": {**_FLAG, "help": "write over results of other settings"},
    "--save-examples": {**_FLAG, "help": "keep the adversarial images, and draw some"},
    "--precision": {
        "choices": ("float32", "bfloat16"),
        "default": "float32",
        "help": "of the network, under attack and when judged",
    },
    TRUST_OPTION: {**_FLAG, "help": TRUST_HELP},
    "--no-probe": {**_FLAG, "help": "do not look for gradient masking"},
}  # fmt: skip
