"""Several attacks side by side, and random placements, against a few lines of their own."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpiadv.attacks import (
    Climb,
    ClimbView,
    Stand,
    TicketAttack,
    crafting_attack,
    keeps_notes,
    make_attack,
    make_attacks,
    num_copies,
)
from mpiadv.attacks.placing import PlacingAttack
from mpiadv.attacks.spatial import Placement, place, place_each
from mpiadv.contract.tickets import AttackSettings, Purpose, seed_for
from mpiadv.settings import AttackConfig

COUNT, STEPS, SEED, RADIUS = 12, 4, 9, 0.42
LABELS = torch.arange(COUNT) % 3
L2 = {"name": "l2", "epsilon": RADIUS}
PLACED = {"name": "rotation_translation", "degrees": 40, "pixels": 2}


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


IMAGES = torch.rand(COUNT, 1, 5, 5, generator=_generator(3))


def _model() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)).eval()


def _looking(model: nn.Module) -> ClimbView:
    climb = Climb(
        model=model, precision="float32", loss=None, labels=LABELS, natural=IMAGES, natural_seed=0
    )
    return ClimbView(climb=climb)


def _config(*further: dict[str, Any], **changes: Any) -> AttackConfig:
    given = {"epsilon": 0.1, "num_steps": STEPS, "further": list(further) or None, **changes}
    return AttackConfig.model_validate(given)


def _made(config: AttackConfig, *, epsilon: float | None = None, seed: int = SEED) -> TicketAttack:
    radius = config.epsilon if epsilon is None else epsilon
    return crafting_attack(config, AttackSettings(num_steps=STEPS, epsilon=radius), seed)


def _stands(attack: TicketAttack, model: nn.Module, natural: Tensor = IMAGES) -> list[Stand]:
    stand = Stand(attack.start(natural, _generator()))
    return list(attack.steps(_looking(model), natural, stand))


def _alone(config: AttackConfig, model: nn.Module, generator: torch.Generator) -> Tensor:
    attack = make_attack(config)
    stand = Stand(attack.start(IMAGES, generator))
    return list(attack.steps(_looking(model), IMAGES, stand))[-1].images


def _losses(model: nn.Module, images: Tensor) -> Tensor:
    return F.cross_entropy(model(images), LABELS, reduction="none").detach()


def _each_alone(model: nn.Module) -> list[Tensor]:
    """L-inf, then L2, which draw their starts one after the other."""
    generator = _generator()
    in_l2 = _config(norm="l2", epsilon=RADIUS)
    starts = [make_attack(each).start(IMAGES, generator) for each in (_config(), in_l2)]
    return [
        list(make_attack(each).steps(_looking(model), IMAGES, Stand(start)))[-1].images
        for each, start in zip((_config(), in_l2), starts, strict=True)
    ]


def test_all_of_them_are_what_each_makes_alone() -> None:
    model = _model()
    images = _stands(_made(_config(L2, combine="average")), model)[-1].images
    assert torch.equal(images, torch.cat(_each_alone(model)))


def test_worst_of_each_image_is_the_one_of_the_highest_loss() -> None:
    model = _model()
    alone = _each_alone(model)
    images = _stands(_made(_config(L2, combine="worst")), model)[-1].images
    losses = torch.stack([_losses(model, each) for each in alone])
    assert torch.equal(_losses(model, images), losses.max(dim=0).values)
    chosen = losses.argmax(dim=0)
    assert set(chosen.tolist()) == {0, 1}, "each of them is the worst of some image"
    for at, which in enumerate(chosen.tolist()):
        assert torch.equal(images[at], alone[which][at])


def test_random_one_is_that_of_the_ticket_and_each_has_its_turn() -> None:
    model, config = _model(), _config(L2, PLACED, combine="random")
    made = [_made(config, seed=seed) for seed in range(3)]
    first, second, third = (_stands(attack, model)[-1].images for attack in made)
    assert torch.equal(first, _alone(_config(), model, _generator()))
    assert torch.equal(second, _alone(_config(norm="l2", epsilon=RADIUS), model, _generator()))
    assert isinstance(made[2], PlacingAttack)
    assert not torch.equal(third, first)


@pytest.mark.parametrize("combine", ["worst", "average"])
@pytest.mark.parametrize("halfway", range(STEPS))
def test_attacks_that_go_on_elsewhere_end_where_an_undivided_one_does(
    combine: str, halfway: int
) -> None:
    model, attack = _model(), _made(_config(L2, PLACED, combine=combine))
    stand = Stand(attack.start(IMAGES, _generator()))
    for moved in attack.steps(_looking(model), IMAGES, stand, last=halfway):
        stand = moved
    *_, last = attack.steps(_looking(model), IMAGES, stand, first=halfway)
    assert torch.equal(last.images, _stands(attack, model)[-1].images)


def _placing(**changes: Any) -> PlacingAttack:
    given = {"num_steps": STEPS, "degrees": 40.0, "pixels": 2.0, "seed": SEED, **changes}
    return PlacingAttack(**given)


def test_placement_that_stays_is_the_worst_of_those_tried() -> None:
    model = _model()
    stands = _stands(_placing(), model)
    losses = torch.stack([_losses(model, stand.images) for stand in stands])
    assert bool((losses[1:] >= losses[:-1]).all()), "no image gets an easier one"
    tried = [_stands(_placing(num_steps=1, seed=SEED + other), model)[0] for other in range(3)]
    assert not torch.equal(tried[0].images, tried[1].images), "placements are drawn by the seed"
    noted = stands[-1].notes
    assert noted is not None
    assert torch.allclose(noted.double() / 1e6, losses[-1].double(), atol=1e-6)


def test_placement_is_compared_with_the_loss_that_was_noted() -> None:
    model, highest = _model(), torch.full((COUNT,), 10**9)
    stand = Stand(IMAGES, highest)
    (after,) = _placing().steps(_looking(model), IMAGES, stand, first=1, last=2)
    assert torch.equal(after.images, IMAGES)


def test_placements_of_a_broken_model_are_taken_and_told_as_the_highest_loss() -> None:
    model = _model()
    for parameter in model.parameters():
        nn.init.constant_(parameter, float("nan"))
    last = _stands(_placing(), model)[-1]
    assert last.notes is not None and last.notes.tolist() == [10**15] * COUNT


def test_placing_each_is_placing_one_at_a_time() -> None:
    degrees, right, down = torch.rand(3, COUNT, generator=_generator(), dtype=torch.float64) * 3
    placed = place_each(IMAGES, degrees=degrees, right=right, down=down)
    one_by_one = [
        place(image[None], Placement(degrees=float(d), right=float(x), down=float(y)))
        for image, d, x, y in zip(IMAGES, degrees, right, down, strict=True)
    ]
    assert torch.allclose(placed, torch.cat(one_by_one), atol=1e-6)


@pytest.mark.parametrize("combine", ["worst", "average", "random"])
def test_batch_without_images_to_attack_stays_empty(combine: str) -> None:
    nothing = IMAGES[:0]
    for seed in range(3):
        attack = _made(_config(L2, PLACED, combine=combine), seed=seed)
        model = _model()
        climb = Climb(
            model=model, precision="float32", loss=None, labels=LABELS[:0], natural=nothing,
            natural_seed=0,
        )  # fmt: skip
        stand = Stand(attack.start(nothing, _generator()))
        *_, last = attack.steps(ClimbView(climb=climb), nothing, stand)
        assert last.images.shape == nothing.shape


def test_radius_that_grows_makes_all_threat_models_grow() -> None:
    model, config = _model(), _config(L2, PLACED, combine="average")
    small = _stands(_made(config, epsilon=0.025), model)[-1].images.split(COUNT)
    in_ball, in_l2, placed = (part - IMAGES for part in small)
    assert in_ball.abs().max() <= 0.025 + 1e-6
    assert in_l2.flatten(1).norm(dim=1).max() <= RADIUS / 4 + 1e-6
    drawn = seed_for(SEED, Purpose.THREATS, 0)
    (part,) = _stands(_placing(num_steps=1, degrees=10.0, pixels=0.5, seed=drawn), model)
    quarter = _made(_config(PLACED, combine="average"), epsilon=0.025)
    assert torch.equal(_stands(quarter, model)[0].images[COUNT:], part.images)
    assert placed.abs().max() > 0


def test_nothing_grows_where_the_radius_is_zero() -> None:
    attack = _made(_config(L2, epsilon=0.0, combine="average"), epsilon=0.0)
    in_ball, in_l2 = _stands(attack, _model())[-1].images.split(COUNT)
    assert torch.equal(in_ball, IMAGES)
    assert not torch.equal(in_l2, IMAGES), "the other threat model is as it was given"


def test_two_ranges_of_placements_are_drawn_apart() -> None:
    attack = _made(_config(PLACED, PLACED, combine="average"))
    _, first, second = _stands(attack, _model())[-1].images.split(COUNT)
    assert not torch.equal(first, second)


def test_what_travels_is_known_from_the_configuration() -> None:
    assert num_copies(_config()) == num_copies(_config(L2, combine="random")) == 1
    assert num_copies(_config(L2, PLACED)) == 3
    assert not keeps_notes(_config(L2))
    assert keeps_notes(_config(PLACED)) and keeps_notes(_config(L2, name="friendly"))
    assert [attack.epsilon for attack in make_attacks(_config(PLACED, L2))] == [0.1, RADIUS]
