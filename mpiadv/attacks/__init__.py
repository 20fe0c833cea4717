"""What is done to images. Knows no communicator and no configuration but the attack's."""

from mpiadv.attacks.attack import STARTS, Attack, Stand
from mpiadv.attacks.casting import as_target, hold_cast
from mpiadv.attacks.climb import (
    Climb,
    ClimbView,
    Look,
    Slope,
    forward,
    mean_magnitude,
    mixed_precision,
)
from mpiadv.attacks.losses import LOSSES, AttackLoss
from mpiadv.attacks.named import ATTACKS, attack_num_steps, make_attack, require_purpose, suited
from mpiadv.attacks.norms import NORMS
from mpiadv.attacks.threats import (
    TicketAttack,
    crafting_attack,
    keeps_notes,
    make_attacks,
    num_copies,
)
from mpiadv.attacks.user import rehearse

__all__ = [
    "ATTACKS",
    "LOSSES",
    "NORMS",
    "STARTS",
    "Attack",
    "AttackLoss",
    "Climb",
    "ClimbView",
    "Look",
    "Slope",
    "Stand",
    "TicketAttack",
    "as_target",
    "attack_num_steps",
    "crafting_attack",
    "forward",
    "hold_cast",
    "keeps_notes",
    "make_attack",
    "make_attacks",
    "mean_magnitude",
    "mixed_precision",
    "num_copies",
    "rehearse",
    "require_purpose",
    "suited",
]
