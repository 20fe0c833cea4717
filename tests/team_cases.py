"""What several trainers train together, and must end with the bits of one."""

import plain_accumulation
from end_to_end import TINY, Start, staleness
from run_cases import RULES, SOON_REFRESHED

TEAMS = ((1, 1), (1, 3), (2, 2), (2, 5), (4, 4), (4, 8))
"""Numbers of trainers and of ranks."""

FEW_TEAMS = ((1, 1), (4, 5))

CASES = {
    "everything": (
        *RULES["two_trainer_steps"], "training.tickets_per_step=4", "training.wire_dtype=float16",
        "model.name=small_models:batch_norm", "attack.batch_norm=train", "average.decay=0.9",
        "training.precision=bfloat16", "objective.clean_fraction=0.25",
    ),
    "refreshed": (
        *RULES["refreshed"], "training.tickets_per_step=4", "model.name=small_models:batch_norm",
        "data.crop_padding=1", "data.flip=true", "data.cutmix_alpha=1", "log.fresh_every=4",
    ),
}  # fmt: skip
"""Compared on all of `TEAMS`."""

PLAIN = "followed_by_a_plain_loop"

FEW_CASES = {
    PLAIN: (*plain_accumulation.WORDS, "training.tickets_per_step=4"),
    "growing": (
        *SOON_REFRESHED, "training.tickets_per_step=8", "attack_schedule.name=m_plus",
        "data.train_samples=320", "checkpoint.every_steps=7",
    ),
    "trades_without_attackers_in_time": (
        *RULES["synchronous"], "training.tickets_per_step=4", "objective.name=trades",
        "training.wire_dtype=bfloat16", "staleness.trainer_crafts=false",
    ),
    "yopo": (
        *staleness(16, 2, 2, 5), "training.step=yopo", "training.tickets_per_step=4",
        "attack.num_steps=5", "model.name=small_models:batch_norm",
    ),
    "moved_weights_of_threats": (
        *RULES["constant"], "training.tickets_per_step=4", "training.step=awp",
        "attack.further=[{name: l2, epsilon: 1.0}]", "attack.combine=random",
        "data.rand_augment_ops=1",
    ),
}  # fmt: skip
"""Compared on `FEW_TEAMS`."""

ALL = {**dict.fromkeys(CASES, TEAMS), **dict.fromkeys(FEW_CASES, FEW_TEAMS)}
"""Case to its teams; what comes first has one trainer, all others are compared with it."""

LAYOUTS = {
    "0011": (2, "hosts"),
    "010123": (2, "hosts"),
    "001122": (2, "first"),
    "0000111": (4, "hosts"),
}
"""Hosts of the ranks to the number of trainers, and the layout."""
LAID_OUT = "refreshed"

CHAIN = (((2, 5), 6), ((1, 3), 11), ((4, 8), 17), ((2, 2), None))
"""Trainers, ranks, and the step after which a run that is resumed by others is interrupted."""
INTERRUPTED = "everything"


def words_of(case: str, trainers: int, *further: str) -> tuple[str, ...]:
    words = {**CASES, **FEW_CASES}[case]
    return (*TINY, "deadline_seconds=30", *words, f"training.trainers={trainers}", *further)


def folder_of(case: str, trainers: int, ranks: int) -> str:
    return f"{case}-{trainers}-of-{ranks}"


def all_starts() -> list[Start]:
    chain = [
        Start(
            folder=f"{INTERRUPTED}-interrupted",
            ranks=ranks,
            argv=words_of(INTERRUPTED, trainers, "checkpoint.every_steps=4", "--resume"),
            stop_after=stop,
        )
        for (trainers, ranks), stop in CHAIN
    ]
    laid_out = [
        Start(
            folder=f"on-{hosts}",
            ranks=len(hosts),
            hosts=hosts,
            argv=words_of(LAID_OUT, trainers, f"training.team_layout={layout}"),
        )
        for hosts, (trainers, layout) in LAYOUTS.items()
    ]
    return [
        *chain,
        *laid_out,
        *(
            Start(
                folder=folder_of(case, trainers, ranks),
                ranks=ranks,
                argv=words_of(case, trainers),
            )
            for case, teams in ALL.items()
            for trainers, ranks in teams
        ),
    ]
