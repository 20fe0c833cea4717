"""What is trained on several numbers of ranks, and must end with the same bits."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

from end_to_end import NUM_STEPS, TINY, Start, staleness

MANY_RANKS = (8, 5, 3, 2, 1)
SOME_RANKS = (5, 1)
"""Of what attackers and trainer do with a ticket, whoever they are: rules go through more."""
FEW_RANKS = (8, 3, 1)
"""Of rules that go through all others in float32."""

RULES = {
    "synchronous": staleness(0, 0, 1),
    "constant": staleness(4, 4, 1),
    "constant_seldom_published": staleness(8, 8, 4),
    "refreshed": staleness(16, 4, 4),
    "one_trainer_step": staleness(16, 2, 2, 1),
    "two_trainer_steps": staleness(12, 3, 3, 2),
}

SOON_REFRESHED = staleness(8, 2, 2, 1)
"""Of a window so short that most tickets go by settings that versions after the first carry."""

FEATURES = {
    "half_clean": (*RULES["refreshed"], "objective.clean_fraction=0.5"),
    "l2": (*RULES["one_trainer_step"], "attack.norm=l2", "attack.epsilon=1.0"),
    "augmented": (*RULES["refreshed"], "data.crop_padding=1", "data.flip=true"),
    "ufgsm": (*RULES["constant"], "attack.name=ufgsm"),
    "batch_norm_and_dropout": (
        *RULES["two_trainer_steps"], "model.name=small_models:batch_norm",
        "attack.batch_norm=train",
    ),
    "random_in_evaluation": (
        *RULES["two_trainer_steps"], "model.name=small_models:random_always",
    ),
    "piecewise": (
        *SOON_REFRESHED, "attack_schedule.name=piecewise",
        "attack_schedule.first_steps=1", "attack_schedule.milestones=[3, 6]",
        "attack_schedule.later_steps=[0, 5]",
    ),
    "epsilon_warmup": (*SOON_REFRESHED, "attack.epsilon_warmup_steps=15"),
    "sgd_cosine": (
        *RULES["one_trainer_step"], "optimizer.name=sgd", "optimizer.learning_rate=0.05",
        "optimizer.weight_decay=0.001", "schedule.name=cosine",
    ),
    "trades_float32_wire": (*RULES["synchronous"], "objective.name=trades"),
    "trades_clean_batch_norm_and_dropout": (
        *RULES["two_trainer_steps"], "objective.name=trades", "objective.clean_fraction=0.25",
        "model.name=small_models:batch_norm", "attack.batch_norm=train",
    ),
    "grad_align_batch_norm": (
        *RULES["constant"], "attack.name=fgsm", "objective.name=grad_align",
        "model.name=small_models:batch_norm", "training.precision=bfloat16",
    ),
    "friendly_float16_wire": (
        *RULES["two_trainer_steps"], "attack.name=friendly", "attack.tau=1",
        "training.wire_dtype=float16", "objective.name=mart", "objective.clean_fraction=0.25",
        "model.name=small_models:batch_norm", "attack.batch_norm=train",
    ),
    "free_bfloat16_wire": (
        *staleness(16, 2, 2, 5), "training.step=free", "attack.step_size=0.15",
        "training.wire_dtype=bfloat16", "objective.name=margin", "objective.clean_fraction=0.25",
        "model.name=small_models:batch_norm",
    ),
    "mixed_and_augmented": (
        *RULES["one_trainer_step"], "data.cutmix_alpha=1", "data.rand_augment_ops=2",
        "data.flip=true", "objective.name=score", "training.wire_dtype=float16",
        "model.name=small_models:batch_norm", "attack.batch_norm=train", "training.step=awp",
    ),
    "users_attack": (
        *RULES["refreshed"], "attack.name=small_attacks:friendly", "attack.arguments.tolerance=2",
        "attack.norm=l1", "attack.epsilon=2",
    ),
    "trainer_crafts_nothing": (*RULES["refreshed"], "staleness.trainer_crafts=false"),
    "averaged": (
        *RULES["two_trainer_steps"], "model.name=small_models:batch_norm", "average.decay=0.9",
        "average.warmup_fraction=0.3",
    ),
    "four_tickets_a_step": (
        *RULES["two_trainer_steps"], "training.tickets_per_step=4", "training.wire_dtype=float16",
        "model.name=small_models:batch_norm", "attack.batch_norm=train", "average.decay=0.9",
        "training.precision=bfloat16",
    ),
    "two_tickets_a_growing_step": (
        *SOON_REFRESHED, "training.tickets_per_step=2", "attack_schedule.name=m_plus",
        "data.train_samples=160", "log.fresh_every=4",
    ),
    "evaluations_and_snapshots": (
        *RULES["refreshed"], "evaluation.every_steps=8", "evaluation.num_samples=50",
        "log.snapshot_every=8", "log.snapshot_images=2", "checkpoint.every_steps=8",
    ),
}  # fmt: skip

WIRES = {
    "synchronous_float16_wire": (*RULES["synchronous"], "training.wire_dtype=float16"),
    "synchronous_bfloat16_wire": (*RULES["synchronous"], "training.wire_dtype=bfloat16"),
    "constant_float16_wire": (*RULES["constant"], "training.wire_dtype=float16"),
    "refreshed_bfloat16_wire": (*RULES["refreshed"], "training.wire_dtype=bfloat16"),
    "natural_float16_wire": (
        *RULES["two_trainer_steps"], "training.wire_dtype=float16", "objective.clean_fraction=0.5",
        "model.name=small_models:batch_norm", "attack.batch_norm=train",
    ),
    "trades_float16_wire": (
        *RULES["synchronous"], "objective.name=trades", "training.wire_dtype=float16",
    ),
    "trades_trainer_step_float16_wire": (
        *RULES["one_trainer_step"], "objective.name=trades", "training.wire_dtype=float16",
    ),
}  # fmt: skip
WIRE_RANKS = (3, 2, 1)

NUMERICS = {
    f"{precision}-{memory_format}-{wire}": (
        *RULES["one_trainer_step"], "attack.norm=l2", "attack.epsilon=1.0",
        "data.name=bad_parts:images", "data.arguments.num_samples=800",
        "data.arguments.shape=[3, 8, 8]", "model.name=small_models:batch_norm",
        f"training.precision={precision}", f"training.memory_format={memory_format}",
        f"training.wire_dtype={wire}",
    )
    for precision, memory_format, wire in itertools.product(
        ("float32", "bfloat16"),
        ("contiguous", "channels_last"),
        ("float32", "float16", "bfloat16"),
    )
}  # fmt: skip
"""On images whose channels do not lie together, in a norm whose sums know it."""
NUMERICS_RANKS = (5, 3, 2, 1)

PICTURES = {
    f"{memory_format}-pictures": (
        *SOON_REFRESHED, "data.name=bad_parts:images_by_pixel", "data.arguments.num_samples=320",
        "data.arguments.shape=[1, 28, 28]", "model.name=mnist", "model.arguments.width=0.25",
        "model.arguments.initialization=torch", "objective.name=trades",
        f"training.precision={precision}", f"training.memory_format={memory_format}",
    )
    for precision, memory_format in (("float32", "contiguous"), ("bfloat16", "channels_last"))
}  # fmt: skip
"""Of one channel, whose strides say nothing; natural images reach the trainer, too."""

CASES = {
    **{f"{name}-float32": rule for name, rule in RULES.items()},
    **{f"{name}-bfloat16": (*rule, "training.precision=bfloat16") for name, rule in RULES.items()},
    **FEATURES,
    **WIRES,
    **NUMERICS,
    **PICTURES,
}
"""Case to its overrides; each runs on several numbers of ranks, attackers pausing at random."""

RANKS = {name: MANY_RANKS for name in CASES}
RANKS |= {f"{name}-bfloat16": FEW_RANKS for name in RULES}
RANKS |= {name: SOME_RANKS for name in FEATURES} | {name: WIRE_RANKS for name in WIRES}
RANKS |= {name: NUMERICS_RANKS for name in NUMERICS} | {name: WIRE_RANKS for name in PICTURES}

PIECEWISE = "piecewise"
GROWING = "two_tickets_a_growing_step"
NOT_CRAFTED = "free_bfloat16_wire"
WATCHED = "evaluations_and_snapshots"
IDLE_TRAINER = "trainer_crafts_nothing"
WITHOUT_EFFECT = (WATCHED, IDLE_TRAINER)
STRAGGLER = "refreshed-float32"
STRAGGLER_RANKS = (5, 2)
BOUNDED_RANKS = (8, 3)

CHAINS = {
    "two_trainer_steps-float32": (3, 1, 5, 2),
    "batch_norm_and_dropout": (5, 8, 1, 3),
    "epsilon_warmup": (1, 2, 8, 5),
    "natural_float16_wire": (2, 3, 1, 2),
    "averaged": (3, 1, 2, 3),
    "four_tickets_a_step": (3, 5, 1, 2),
}
"""Case to the numbers of ranks of its first start and the three that resume it."""

TCP_CASES = ("constant-float32", "two_trainer_steps-bfloat16", "batch_norm_and_dropout")
TCP_RANKS = (5, 3, 2)


def folder_of(case: str, ranks: int) -> str:
    return f"{case}-on-{ranks}"


def stops_of(case: str) -> list[int]:
    """Three steps of the run, drawn by lot."""
    return sorted(random.Random(case).sample(range(1, NUM_STEPS), 3))


def chain_of(case: str) -> list[Start]:
    """A run that is interrupted three times, and resumed by other numbers of ranks."""
    argv = (*TINY, *CASES[case], "checkpoint.every_steps=4")
    return [
        Start(
            folder=f"{case}-interrupted",
            ranks=size,
            argv=(*argv, "--resume") if number else argv,
            stop_after=stop,
        )
        for number, (size, stop) in enumerate(
            zip(CHAINS[case], [*stops_of(case), None], strict=True)
        )
    ]


def starts_with(case: str, ranks: Sequence[int], *overrides: str, **further: Any) -> list[Start]:
    """A case on each of so many ranks; `further` is for `Start`."""
    argv = (*TINY, *overrides)
    return [Start(folder=folder_of(case, size), ranks=size, argv=argv, **further) for size in ranks]


def all_starts() -> list[Start]:
    """The slowest first: the others run beside them."""
    return [
        *starts_with("straggler", STRAGGLER_RANKS, *CASES[STRAGGLER], pauses="straggler"),
        *(start for case in CHAINS for start in chain_of(case)),
        *(start for case in CASES for start in starts_with(case, RANKS[case], *CASES[case])),
        *starts_with("synchronous-averaged", (1,), *RULES["synchronous"], "average.decay=0.9"),
        *starts_with("bounded", BOUNDED_RANKS, *RULES["refreshed"], "staleness.mode=bounded"),
    ]
