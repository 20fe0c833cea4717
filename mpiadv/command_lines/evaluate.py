"""The command line of evaluation."""

import argparse
import os
from collections.abc import Sequence

from mpiadv.command_lines.described import TRUSTED, Described, flag, repeated, value, words
from mpiadv.command_lines.numbers import whole
from mpiadv.process.errors import UserError

ATTACKS = (
    "pgd", "fgsm", "ufgsm", "cw", "apgd-ce", "apgd-t", "fab-t", "square", "autoattack", "grid",
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
        "words": words(
            "+",
            "CHECKPOINT|KEY=VALUE",
            "a run's folder, its checkpoint-NUMBER.pt, or a state dict (.pt) with model.name=... "
            "data.name=...; and settings, as section.key=value",
        )
    },
    options={
        "--attack": {
            "dest": "attacks",
            **repeated(
                "NAME[:KEY=VALUE,...]",
                "for example pgd:steps=100,restarts=20,epsilon=0.3,loss=margin",
            ),
        },
        "--protocol": {"dest": "protocols", **repeated("NAME", "the attacks of a paper")},
        "--each-alone": flag(
            "start each attack from all images, not from what others left standing"
        ),
        "--samples": {
            "dest": "num_samples",
            **value("N", "only N test images, the same N always", whole(1, 10**9)),
        },
        "--transfer-from": repeated(
            "CHECKPOINT", "run the gradient attacks also with images crafted on this network"
        ),
        "--output": value("FOLDER", "for the results; without it, beside CHECKPOINT"),
        "--overwrite": flag("write over results of other settings"),
        "--save-examples": flag("keep the adversarial images, and draw some"),
        "--precision": {
            "choices": ("float32", "bfloat16"),
            "help": "of the network, under attack and when judged; evaluation.precision without it",
        },
        **TRUSTED,
        "--no-probe": {
            "dest": "probe",
            "action": "store_false",
            "help": "do not look for gradient masking",
        },
    },
)


def read(given: Sequence[str]) -> argparse.Namespace | None:
    """What `given` asks for, with `paths` and `overrides`; None: for help, which is printed.

    Raises:
        UserError: it is none of the command line's, or names no network.
    """
    asked = EVALUATE.read(given)
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
