"""Telling of fees and channels, as a person reads it."""

from collections.abc import Callable

from ..domain.channels import ChannelsSet
from ..domain.one_off import FeeCharged, FeeCredited
from .scalars import money_text

OwedEvent = FeeCharged | FeeCredited | ChannelsSet


def owed_sentence(name: Callable[[str], str], event: OwedEvent) -> str:
    because = f": {event.note}" if event.note else ""
    match event:
        case FeeCharged():
            much = money_text(event.amount)
            return f"{event.name} of {much} was charged to {name(event.node)} for {event.period}{because}."
        case FeeCredited():
            much = money_text(event.amount)
            return f"{event.name} of {much} was credited to {name(event.node)} in {event.period}{because}."
        case ChannelsSet():
            return f"{name(event.resource)} has {event.channels} channels{because}."
