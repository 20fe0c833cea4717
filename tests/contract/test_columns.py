"""What is written once, in a dataclass's fields: how it travels, and the columns it makes."""

from dataclasses import dataclass
from enum import IntEnum
from math import isnan

import numpy as np

from mpiadv.comm.messages import BatchHeader, Farewell
from mpiadv.contract.columns import blank, column, columns_of, from_record, record_type, to_record
from mpiadv.runlog.rows import LAYOUTS, layout_of


class Colour(IntEnum):
    RED = 0
    GREEN = 1


@dataclass(frozen=True, kw_only=True)
class Part:
    share: float = column("f4", "0 to 1")
    label: str = column("S4", "a name", name="part_label")
    unseen: int


@dataclass(frozen=True, kw_only=True)
class Whole:
    colour: Colour
    step: int = column("i4", "training steps")
    part: Part
    is_open: bool
    double: int = column("i8", "twice the steps", init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "double", 2 * self.step)


def whole(label: str = "name") -> Whole:
    part = Part(share=0.5, label=label, unseen=3)
    return Whole(colour=Colour.GREEN, step=7, part=part, is_open=True)


def test_record_comes_back_with_its_parts_and_its_types() -> None:
    record = np.array([to_record(whole())], record_type(Whole))
    back = from_record(Whole, record[0].item())
    assert back == whole()
    assert back.colour is Colour.GREEN and back.is_open is True and back.double == 14


def test_text_is_cut_to_its_room_between_characters() -> None:
    assert from_record(Whole, to_record(whole("añañ"))).part.label == "aña"


def test_columns_are_those_with_a_unit_parts_in_their_place() -> None:
    layout = layout_of(Whole, 1)
    assert layout.units == {
        "step": "training steps", "share": "0 to 1", "part_label": "a name",
        "double": "twice the steps",
    }  # fmt: skip
    row = np.array([layout.as_tuple(whole())], layout.dtype)[0]
    assert row.item() == (7, 0.5, b"name", 14)
    assert layout.dtype["share"] == np.float32 and layout.dtype["step"] == np.int32


def test_blank_says_no_more_than_what_is_known() -> None:
    said = blank(Whole, step=7)
    assert (said.step, said.double, said.part.label, said.part.unseen) == (7, 14, "", 0)
    assert isnan(said.part.share)


def test_what_is_told_of_a_ticket_is_all_in_its_header_and_in_the_log() -> None:
    told = {(c.name, c.unit) for c in columns_of(BatchHeader) if not c.path.startswith("probe.")}
    assert told and told <= LAYOUTS["train"].units.items()
    probed = {(c.name, c.unit) for c in columns_of(Farewell) if c.path.startswith("probe.")}
    assert probed == LAYOUTS["fresh"].units.items()


def test_training_steps_keep_the_columns_that_logs_have_had_in_their_order() -> None:
    had = [
        "step", "ticket", "first_version", "last_version", "first_staleness",
        "last_staleness", "rank", "attack_steps", "epsilon", "learning_rate", "loss",
        "accuracy", "natural_accuracy", "gradient_magnitude", "craft_seconds",
        "parameter_wait_seconds", "trainer_wait_seconds", "grant_wait_seconds",
        "own_craft_seconds", "wait_seconds", "train_seconds", "publish_seconds",
        "exchange_seconds", "wall_clock",
    ]  # fmt: skip
    layout = LAYOUTS["train"]
    assert [name for name in layout.dtype.names or () if name in had] == had
    whole = ("step", "ticket", "first_version", "last_version")
    short = ("first_staleness", "last_staleness", "rank", "attack_steps")
    kinds = dict.fromkeys(whole, "<i8") | dict.fromkeys(short, "<i4")
    assert {name: layout.dtype[name].str for name in had} == dict.fromkeys(had, "<f8") | kinds
