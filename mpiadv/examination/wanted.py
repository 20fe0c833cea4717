"""What a command line asks of an evaluation, and how rank 0 tells it to the others."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic.dataclasses import dataclass

from mpiadv.command_lines.evaluate import read
from mpiadv.evaluation.attack_specs import split_word
from mpiadv.evaluation.protocols import protocol_of
from mpiadv.process.errors import UserError
from mpiadv.settings import Precision


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user asks for, of every network, by the names that the command line gives it.

    Lists become tuples.

    Attributes:
        overrides: settings as `key.subkey=value`.
        protocols: names of `PROTOCOLS`, which come first.
        attacks: words for `read_attacks`; none of both: PGD as the configuration's `evaluation`
            has it.
        each_alone: whether each attack starts from all images, not from the survivors.
        num_samples: so many test images, by `choose_samples`; None: all.
        transfer_from: networks to craft images on.
        output: a folder for the results; None: beside the network.
        precision: of the networks; None: that of the subject's own evaluations.
        probe: whether to attack a few images more, in search of gradient masking.
        trust_code: whether to run what a network's own settings name as its model or data set.
    """

    overrides: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()
    each_alone: bool = False
    num_samples: int | None = None
    transfer_from: tuple[str, ...] = ()
    output: str | None = None
    overwrite: bool = False
    save_examples: bool = False
    precision: Precision | None = None
    probe: bool = True
    trust_code: bool = False

    @property
    def trusted(self) -> Sequence[str] | None:
        """What code a network's own settings may name; see `override_config`."""
        if self.trust_code:
            return None
        return (*self.overrides, *(f"attack.name={split_word(each)[0]}" for each in self.attacks))


def read_request(argv: Sequence[str]) -> str:
    """The networks, and what is wanted of each, as JSON; empty where the answer is given."""
    asked = read(argv)
    if asked is None:
        return ""
    for name in asked.protocols:
        protocol_of(name)  # an unknown one is refused before anything is read
    wanted = Wanted(**vars(asked))
    each = [(path, _with_output(wanted, path, asked.paths)) for path in asked.paths]
    return json.dumps([(path, dataclasses.asdict(settings)) for path, settings in each])


def _with_output(wanted: Wanted, path: str, paths: Sequence[str]) -> Wanted:
    """Several networks get a folder each inside the one that was named."""
    if wanted.output is None or len(paths) == 1:
        return wanted
    names = [Path(each).resolve().with_suffix("").name for each in paths]
    name = Path(path).resolve().with_suffix("").name
    if names.count(name) > 1:
        raise UserError(f"--output {wanted.output}: two networks are called {name}: evaluate apart")
    return dataclasses.replace(wanted, output=str(Path(wanted.output, name)))
