"""`mpiadv plan`: measure crafting and training here, then say what to expect of a job. No logic."""

import argparse
import json
import sys
from collections.abc import Sequence

from mpiadv.comm.world import World
from mpiadv.command_lines.tables import PLAN
from mpiadv.forecast.text import lines_of, values_of
from mpiadv.process.errors import UserError
from mpiadv.process.exit_codes import EXIT_DONE
from mpiadv.session.agreement import agree
from mpiadv.session.all_ranks import on_all_ranks
from mpiadv.session.forecasting import Where, plan_run
from mpiadv.session.setup import prepare
from mpiadv.settings import read_words


def main(argv: Sequence[str]) -> int:
    """Plan on this rank; returns the exit code."""
    return on_all_ranks(lambda world: run(world, argv))


def run(world: World, argv: Sequence[str]) -> int:
    """Plan on the only rank of `world`; returns the exit code."""
    asked = agree(world, lambda: _asked(world, argv))
    if asked is None:
        return EXIT_DONE
    config = agree(world, lambda: read_words(asked.words, trust_code=asked.trust_code))
    where = _where(asked, config.training.trainers)
    # One rank measures what each of the trainers does.
    training = config.training.model_copy(update={"trainers": 1})
    alone = config.model_copy(update={"training": training})
    plan = agree(world, lambda: plan_run(prepare(alone, world), where, _tell))
    if asked.json:
        print(json.dumps(values_of(plan), indent=2), flush=True)
    else:
        print("\n".join(lines_of(plan)), flush=True)
    return EXIT_DONE


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _asked(world: World, argv: Sequence[str]) -> argparse.Namespace | None:
    """The command line, checked; None when it is answered already."""
    asked = PLAN.read(argv)
    if world.size > 1:
        raise UserError(f"plan measures one rank, and {world.size} are here: start it by itself")
    return asked


def _where(asked: argparse.Namespace, trainers: int) -> Where:
    return Where(
        trainers=trainers,
        ranks=asked.ranks,
        ranks_per_host=asked.ranks_per_host,
        gigabits_per_second=asked.bandwidth,
        latency_milliseconds=asked.latency,
        craft_seconds=asked.craft_seconds,
        train_seconds=asked.train_seconds,
    )
