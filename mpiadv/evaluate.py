"""`python -m mpiadv.evaluate`: attack trained networks, alone or on all ranks. No logic."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpiadv.comm.world import World
from mpiadv.config import TRUST_HELP, TRUST_OPTION
from mpiadv.engine.display import console_for
from mpiadv.engine.entry import CommandLine, on_all_ranks
from mpiadv.engine.examination import examine
from mpiadv.engine.examined import Wanted
from mpiadv.engine.session import agree
from mpiadv.errors import UserError
from mpiadv.evaluation.plan import KINDS, PROTOCOLS, protocol_of
from mpiadv.exit_codes import EXIT_DONE


def parser() -> argparse.ArgumentParser:
    """The command line."""
    described = CommandLine(
        prog="mpiadv evaluate",
        description="Attack trained networks and say how many images withstand.",
        epilog=f"Attacks: {', '.join(KINDS)}. Protocols: {', '.join(PROTOCOLS)}. Without any of "
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
    "--samples": {"type": int, "metavar": "N", "help": "only N test images, the same N always"},
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


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate on this rank; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    return on_all_ranks(lambda world: run(world, words))


def run(world: World, argv: Sequence[str]) -> int:
    """Evaluate on the ranks of `world`; returns this rank's exit code."""
    answer = world.share(agree(world, lambda: _read(argv) if world.is_trainer else ""))
    if not answer:
        return EXIT_DONE
    request = json.loads(answer)
    console = console_for(sys.stdout)
    for path, settings in request:
        examine(world, _unpacked(settings), path, console)
    return EXIT_DONE


def _read(argv: Sequence[str]) -> str:
    """The networks, and what is wanted of each, as JSON; empty where the answer is given."""
    try:
        arguments = parser().parse_intermixed_args(argv)
    except SystemExit:
        return ""
    paths = [word for word in arguments.words if Path(word).exists() or "=" not in word]
    if not paths:
        raise UserError("no network to evaluate: name a run's folder or a file of weights")
    if arguments.samples is not None and arguments.samples < 1:
        raise UserError(f"--samples {arguments.samples}: expected at least 1")
    wanted = _wanted(arguments, [word for word in arguments.words if word not in paths])
    return json.dumps(
        [(path, dataclasses.asdict(_with_output(wanted, path, paths))) for path in paths]
    )


def _wanted(arguments: argparse.Namespace, overrides: Sequence[str]) -> Wanted:
    protocols = [protocol_of(name) for name in arguments.protocol]
    return Wanted(
        overrides=tuple(overrides),
        protocols=tuple(arguments.protocol),
        attacks=tuple(arguments.attack),
        each_alone=arguments.each_alone or any(p.is_each_alone for p in protocols),
        num_samples=arguments.samples,
        transfer_from=tuple(arguments.transfer_from),
        output=arguments.output,
        overwrite=arguments.overwrite,
        save_examples=arguments.save_examples,
        precision=arguments.precision,
        probe=not arguments.no_probe,
        trust_code=arguments.trust_code,
    )


def _unpacked(settings: Mapping[str, Any]) -> Wanted:
    """What JSON gave back: its lists were tuples."""
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()
    }
    return Wanted(**values)


def _with_output(wanted: Wanted, path: str, paths: Sequence[str]) -> Wanted:
    """Several networks get a folder each inside the one that was named."""
    if wanted.output is None or len(paths) == 1:
        return wanted
    names = [Path(each).resolve().with_suffix("").name for each in paths]
    name = Path(path).resolve().with_suffix("").name
    if names.count(name) > 1:
        raise UserError(f"--output {wanted.output}: two networks are called {name}: evaluate apart")
    return dataclasses.replace(wanted, output=str(Path(wanted.output, name)))


if __name__ == "__main__":
    sys.exit(main())
