"""What an attacker's idle time was spent on. Knows no clock: it is told what passed."""

from dataclasses import dataclass

from mpiadv.contract.accounts import RankSeconds


@dataclass(kw_only=True)
class Idleness:
    """Seconds without work, by what was missing.

    `grant`: there was no ticket. `trainer`: there was a ticket, but the trainer had yet to reach
    the version it needed. `parameters`: that version was published and on its way.
    """

    grant: float = 0.0
    trainer: float = 0.0
    parameters: float = 0.0
    _blocked: float = 0.0

    def without_ticket(self, seconds: float) -> None:
        self.grant += seconds

    def blocked(self, seconds: float) -> None:
        """Book time with a ticket that waits; the next arrival tells for what."""
        self._blocked += seconds

    def parameters_arrived(self, seconds_on_their_way: float) -> None:
        """Divide the blocked time: what the parameters took, the rest was the trainer's."""
        on_their_way = min(self._blocked, max(0.0, seconds_on_their_way))
        self.parameters += on_their_way
        self.trainer += self._blocked - on_their_way
        self._blocked = 0.0

    def since(self, earlier: "Idleness") -> "Idleness":
        return Idleness(
            grant=self.grant - earlier.grant,
            trainer=self.trainer - earlier.trainer,
            parameters=self.parameters - earlier.parameters,
        )

    def beside(self, craft_seconds: float) -> RankSeconds:
        """Where all time went with so much of it spent on crafting."""
        return RankSeconds(
            craft_seconds=craft_seconds,
            parameter_wait_seconds=self.parameters,
            trainer_wait_seconds=self.trainer,
            grant_wait_seconds=self.grant,
        )
