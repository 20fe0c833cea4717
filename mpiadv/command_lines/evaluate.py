"""The command line of evaluation."""

import argparse
import os
from collections.abc import Sequence

from mpiadv.command_lines.described import FLAG, REPEATED, TRUSTED, Described
from mpiadv.command_lines.numbers import whole
from mpiadv.process.errors import UserError

ATTACKS = (
    "fgsm", "ufgsm", "pgd", "cw", "apgd-ce", "apgd-t", "fab-t", "square", "autoattack", "grid",
)  # fmt: skip
PROTOCOLS = ("madry", "fast", "trades", "deat", "autoattack")
"""Told by the help, which loads no attack; a test compares them with those that there are."""

EVALUATE = Described(
    name="evaluate",
    example="evaluate FOLDER ...",
    summary="attack trained networks; after launch -n 8: on 8 ranks",
    about="Attack trained networks and say how many images withstand.",
    epilog=f"Attacks: {', '.join(ATTACKS)}, my_module:function. Protocols: "
    f"{', '.join(PROTOCOLS)}. Without any of them, PGD as the run's own evaluation. Exit codes: "
    "0 done, 2 bad input, 1 failed.",
    words={
        "words": {
            "nargs": "+",
            "metavar": "CHECKPOINT|KEY=VALUE",
            "help": "a run's folder, its checkpoint-NUMBER.pt, or a state dict (.pt) with "
            "model.name=... data.name=...; and settings, as section.key=value",
        }
    },
    options={
        "--attack": {
            **REPEATED,
            "metavar": "NAME[:KEY=VALUE,...]",
            "help": "for example pgd:steps=100,restarts=20,epsilon=0.3,loss=margin; may be "
            "repeated",
        },
        "--protocol": {
            **REPEATED, "metavar": "NAME", "help": "the attacks of a paper; may be repeated",
        },
        "--each-alone": {
            **FLAG, "help": "start each attack from all images, not from what others left standing",
        },
        "--samples": {
            "type": whole(1, 10**9),
            "metavar": "N",
            "help": "only N test images, the same N always",
        },
        "--transfer-from": {
            **REPEATED,
            "metavar": "CHECKPOINT",
            "help": "run the gradient attacks also with images crafted on this network",
        },
        "--output": {"metavar": "FOLDER", "help": "for the results; without it, beside CHECKPOINT"},
        "--overwrite": {**FLAG, "help": "write over results of other settings"},
        "--save-examples": {**FLAG, "help": "keep the adversarial images, and draw some"},
        "--precision": {
            "choices": ("float32", "bfloat16"),
            "default": "float32",
            "help": "of the network, under attack and when judged",
        },
        **TRUSTED,
        "--no-probe": {**FLAG, "help": "do not look for gradient masking"},
    },
)  # fmt: skip


def read(words: Sequence[str]) -> argparse.Namespace | None:
    """What `words` ask for, with `paths` and `overrides`; None: for help, which is printed.

    Raises:
        UserError: they are none of the command line's, or name no network.
    """
    asked = EVALUATE.read(words)
    if asked is None:
        return None
    asked.paths = [word for word in asked.words if os.path.exists(word) or "=" not in word]
    asked.overrides = [word for word in asked.words if word not in asked.paths]
    for word in asked.words:
        if word.startswith("output="):
            raise UserError(f"evaluate: {word}: results go to --output FOLDER")
    if not asked.paths:
        raise UserError("no network to evaluate: name a run's folder or a file of weights")
    return asked
