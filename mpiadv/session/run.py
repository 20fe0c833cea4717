"""One run on all ranks, from its command line to its exit code."""

import json
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from mpiadv.comm.messages import Stop
from mpiadv.comm.world import World
from mpiadv.command_lines.tables import TRAIN
from mpiadv.contract.craft_queue import StalenessMode
from mpiadv.evaluation import Counts, evaluate
from mpiadv.evaluation.accuracy import tell_nobody
from mpiadv.evaluation.in_run import evaluation_attack
from mpiadv.loops.attacker import Attacker
from mpiadv.loops.trainer import BACKSTOP
from mpiadv.models import FlatState
from mpiadv.process.errors import UnreadableError, UserError, printable, tell_warning
from mpiadv.process.exit_codes import EXIT_BAD_INPUT, EXIT_DONE, EXIT_RESUME_ME
from mpiadv.process.interruption import Interruption
from mpiadv.session.agreement import AgreedError, agree
from mpiadv.session.branches import judged
from mpiadv.session.desk import Desk, give_up, open_desk
from mpiadv.session.follower import FollowingTrainer
from mpiadv.session.lead import Lead
from mpiadv.session.setup import Setup, prepare
from mpiadv.session.trainers import share_checkpoint
from mpiadv.settings import Config, dump_config, parse_config, read_words
from mpiadv.storage.run_folder import RAW
from mpiadv.work.recipe import state_on_the_wire

_CODES = {
    Stop.FINISHED: EXIT_DONE,
    Stop.INTERRUPTED: EXIT_RESUME_ME,
    Stop.REFUSED: EXIT_BAD_INPUT,
}


def run(world: World, argv: Sequence[str], interruption: Interruption) -> int:
    """One run on the ranks of `world`; returns this rank's exit code."""
    request = _request(world, argv)
    return EXIT_DONE if request is None else _CODES[carry_out(world, *request, interruption)]


def carry_out(world: World, config: Config, resume: bool, interruption: Interruption) -> Stop:
    """Train as `config` says on the ranks of `world`; how it ended.

    Raises:
        AgreedError: the input is bad, or the folder cannot be used.
        NonFiniteLossError, OverfittingError, StorageError: and what `World` raises.
    """
    desk = agree(world, lambda: open_desk(config, resume=resume) if world.is_trainer else None)
    if world.share(_tell_if_done(desk)):
        return Stop.FINISHED
    try:
        setup = prepare(config, world)
        lead = agree(world, lambda: Lead(setup, desk) if desk else None)
    except AgreedError:
        if desk is not None:
            give_up(desk)
        raise
    if lead is not None:
        return _lead(setup, lead, interruption)
    return _follow(setup, interruption) if setup.division.team.is_trainer else _attack(setup)


def _lead(setup: Setup, lead: Lead, interruption: Interruption) -> Stop:
    with lead:
        if setup.division.among_trainers:
            share_checkpoint(setup, lead.checkpoint)
            agree(setup.world, lambda: None)  # whether those that follow can go on from it
        reason = lead.train(lambda: interruption.requested)
        if reason is Stop.FINISHED:
            lead.finish(partial(evaluate_together, setup), interruption.close)
    return reason


def _follow(setup: Setup, interruption: Interruption) -> Stop:
    """The run of a trainer that follows the lead; returns why it ended."""
    checkpoint = share_checkpoint(setup, None)
    follower = agree(setup.world, lambda: FollowingTrainer(setup, checkpoint))
    reason = follower.train(lambda: interruption.requested)
    if reason is Stop.FINISHED:
        _help_to_evaluate(setup, follower.model)
    return reason


def _patience(setup: Setup) -> float:
    """For how long an attacker waits for its trainer.

    Where there are several, longer than those wait for each other: the lead saves what there is.
    """
    usual = setup.config.deadline_seconds
    return usual if setup.division.num_teams == 1 else (1 + BACKSTOP) * usual


def _help_to_evaluate(setup: Setup, model: nn.Module) -> None:
    """Do this rank's share; `model` is the lead's as far as versions carry it."""
    for weights in setup.config.weights:
        evaluate_together(setup, judged(setup.config, model, weights), weights)


def _attack(setup: Setup) -> Stop:
    """An attacker's run: until the trainer stops it; returns why."""
    if setup.division.num_teams > 1:
        agree(setup.world, lambda: None)
    team = setup.division.team
    with team.at_work():
        model = setup.new_target()
    name = setup.world.roster.name(setup.world.rank)
    crafter = setup.new_crafter(model, lambda told: tell_warning(f"{name}: {told}"))
    device, shape = setup.device, setup.link_shape(state_on_the_wire(setup.recipe, model).num_bytes)
    attacker = Attacker(
        rule=setup.recipe.rule,
        mode=StalenessMode(setup.config.staleness.mode),
        link=team.attacker_link(shape, device.allocate, device.pin),
        crafter=crafter,
        host=setup.world.host,
        deadline_seconds=_patience(setup),
    )
    reason, final = attacker.run()
    if reason is Stop.FINISHED:
        # Rounded as they travelled: `evaluate_together` makes the model the trainer's own.
        model = setup.new_model()
        state_on_the_wire(setup.recipe, model).unpack(
            torch.from_numpy(final.values).to(device.torch)
        )
        _help_to_evaluate(setup, model)
    return reason


def _tell_if_done(desk: Desk | None) -> str:
    """Say how a finished run ended; empty where there is something to do."""
    if desk is None or not desk.folder.is_done:
        return ""
    text = "".join(f"{printable(line)}\n" for line in desk.folder.result.splitlines())
    print(f"{desk.folder.path} holds a finished run:\n{text}", end="", flush=True)
    desk.folder.close()
    return "done"


def _request(world: World, argv: Sequence[str]) -> tuple[Config, bool] | None:
    """What the command line asks for, read by rank 0; None when it is answered already."""
    answer = agree(world, lambda: _read(argv) if world.is_trainer else "")
    text = world.share(answer)
    if not text:
        return None
    request = json.loads(text)
    return parse_config(request["config"]), request["resume"]


def _read(argv: Sequence[str]) -> str:
    asked = TRAIN.read(argv)
    if asked is None:
        return ""
    config = read_words(asked.words, trust_code=asked.trust_code)
    if asked.print_config:
        print(dump_config(config), end="", flush=True)
        return ""
    return json.dumps({"config": config.model_dump(mode="json"), "resume": asked.resume})


def evaluate_together(
    setup: Setup,
    model: nn.Module,
    weights: str,
    after_batch: Callable[[int, int], None] = tell_nobody,
) -> Counts:
    """Final accuracy on the test set, its batches shared out over all ranks, on rank 0.

    `weights` are what rank 0 has in its model; all others have them afterwards, whatever they had.
    `after_batch` is that of `evaluate`, for this rank's share.

    Rank 0 does the share of a rank that is lost, or cannot read its images, as well: it meets the
    same fault, or does not. The others get their own counts.

    Raises:
        UserError: images are not what they should be, on rank 0.
        UnreadableError: images could not be read for a while, on rank 0.
    """
    # All have the raw ones already where versions travelled as they are.
    if weights != RAW or setup.recipe.wire_dtype != "float32":
        _take_exactly(setup, model)
    world = setup.world
    try:
        with world.at_work():
            mine = _evaluate_share(setup, model, world.rank, after_batch)
    except (UserError, UnreadableError):
        if world.is_trainer:
            raise
        mine = Counts(rows=np.zeros(0))
    if not world.is_trainer:
        world.collect(mine.rows)
        return mine
    parts = [
        _evaluate_share(setup, model, rank, after_batch).rows if part is None else part
        for rank, part in enumerate(world.collect(mine.rows))
    ]
    return Counts(rows=np.sum(parts, axis=0))


def _take_exactly(setup: Setup, model: nn.Module) -> None:
    """Give every rank rank 0's model bit by bit."""
    state = FlatState(model)
    flat = torch.zeros(state.num_bytes, dtype=torch.uint8, device=setup.device.torch)
    state.pack(flat)
    values = flat.cpu().numpy()
    setup.world.spread(values)
    state.unpack(torch.from_numpy(values).to(setup.device.torch))


def _evaluate_share(
    setup: Setup, model: nn.Module, rank: int, after_batch: Callable[[int, int], None]
) -> Counts:
    config = setup.config.evaluation
    (counts,) = evaluate(
        [model],
        setup.data.test,
        evaluation_attack(setup.config),
        seed=setup.config.seed,
        num_samples=config.final_samples or setup.data.test.num_samples,
        batch_size=config.batch_size,
        precision=setup.config.evaluation.precision,
        share=(rank, setup.world.size),
        after_batch=after_batch,
    )
    return counts
