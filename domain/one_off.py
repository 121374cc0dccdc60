"""One-off fees: what the carrier's staff charge once, such as an installation, and take back as a credit.

A fee stands on the invoice of its period at its node. It is no usage: no allowance or money bucket
pays it, no limit counts it, no policy rules it, and it does not count towards spend that was agreed.
A fee is taken back once, whole, in the period in which that is done; what was charged stays told.
"""

from typing import ClassVar

from msgspec import Struct

from .contract import Contracts
from .hierarchy import Hierarchy
from .refusals import InvariantBroken, Refused, check_text

AMOUNT_MAX = 10**15
"""A thousand million of the currency, in micro-units."""


class FeeCharged(Struct, frozen=True, array_like=True):
    """Something is owed once."""

    topic: ClassVar[str] = "fee.charged"
    fee: str
    """Its own id."""
    name: str
    """What it is called on the invoice."""
    node: str
    period: str
    amount: int
    """Micro-units."""
    note: str = ""


class FeeCredited(Struct, frozen=True, array_like=True):
    """A fee was taken back: so much less is owed in this period."""

    topic: ClassVar[str] = "fee.credited"
    fee: str
    name: str
    node: str
    period: str
    amount: int
    note: str = ""


class ChargeFee(Struct, frozen=True, array_like=True):
    """Charge something once. `fee` is the id that it will have."""

    fee: str
    name: str
    node: str
    amount: int
    period: str = ""
    """"" means the one that is running."""
    note: str = ""


class UndoFee(Struct, frozen=True, array_like=True):
    """Take a fee back, as a credit in the period that runs."""

    fee: str
    note: str


FeeCommand = ChargeFee | UndoFee
FeeEvent = FeeCharged | FeeCredited


class Fees:
    """Every fee that was charged, and which were taken back."""

    def __init__(self, hierarchy: Hierarchy, contracts: Contracts) -> None:
        self._hierarchy = hierarchy
        self._contracts = contracts
        self.charged: dict[str, FeeCharged] = {}
        self.credited: dict[str, FeeCredited] = {}

    def decide(self, command: FeeCommand, now: int) -> FeeEvent:
        if isinstance(command, ChargeFee):
            return self._charge(command, now)
        return self._undo(command, now)

    def _charge(self, command: ChargeFee, now: int) -> FeeCharged:
        check_text("fee", command.fee)
        check_text("name", command.name)
        check_text("note", command.note)
        member = self._hierarchy.member(command.node)
        if not member.is_node:
            raise Refused("unknown_node", node=command.node)
        if not 1 <= command.amount <= AMOUNT_MAX:
            raise Refused("amount_out_of_range", amount=command.amount, amount_max=AMOUNT_MAX)
        if command.fee in self.charged:
            raise Refused("fee_known", fee=command.fee)
        period = self._contracts.require(command.period or self._contracts.name_at(now))
        return FeeCharged(
            command.fee, command.name, command.node, period.period, command.amount, command.note
        )

    def _undo(self, command: UndoFee, now: int) -> FeeCredited:
        check_text("note", command.note)
        charged = self.charged.get(command.fee)
        if charged is None:
            raise Refused("unknown_fee", fee=command.fee)
        if command.fee in self.credited:
            raise Refused("fee_undone", fee=command.fee)
        period = self._contracts.require(self._contracts.name_at(now))
        about = (charged.fee, charged.name, charged.node, period.period, charged.amount)
        return FeeCredited(*about, command.note)

    def apply(self, event: FeeEvent) -> None:
        if isinstance(event, FeeCharged):
            self.charged[event.fee] = event
            return
        charged = self.charged.get(event.fee)
        if charged is None or charged.amount != event.amount or event.fee in self.credited:
            raise InvariantBroken("what is taken back once was charged", fee=event.fee)
        self.credited[event.fee] = event

    def total(self, period: str) -> int:
        """What fees of a period come to, what was taken back in it included."""
        charged = sum(one.amount for one in self.charged.values() if one.period == period)
        return charged - sum(one.amount for one in self.credited.values() if one.period == period)

    def check_whole(self) -> None:
        for fee, credited in self.credited.items():
            if fee not in self.charged or self.charged[fee].amount != credited.amount:
                raise InvariantBroken("what is taken back was charged", fee=fee)
