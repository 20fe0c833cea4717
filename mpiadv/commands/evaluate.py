"""`mpiadv evaluate`: attack trained networks, alone or on all ranks. No logic."""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpiadv.comm.world import World
from mpiadv.command_lines.evaluate import parser
from mpiadv.commands.entry import on_all_ranks
from mpiadv.evaluation.plan import protocol_of
from mpiadv.examination.conduct import examine
from mpiadv.examination.examined import Wanted
from mpiadv.process.errors import UserError
from mpiadv.process.exit_codes import EXIT_DONE
from mpiadv.process.launched import is_one_of_several
from mpiadv.process.lifeline import end_with_the_starter
from mpiadv.process.streams import outlive_readers
from mpiadv.session.display import console_for
from mpiadv.session.setup import agree


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate on this rank; returns the exit code."""
    end_with_the_starter(and_with_parent=is_one_of_several(os.environ))
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
    paths = [word for word in arguments.words if os.path.exists(word) or "=" not in word]
    for word in arguments.words:
        if word.startswith("output="):
            raise UserError(f"evaluate: {word}: results go to --output FOLDER")
    if not paths:
        raise UserError("no network to evaluate: name a run's folder or a file of weights")
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
    outlive_readers()
    sys.exit(main())
