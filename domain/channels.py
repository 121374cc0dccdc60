"""Channels: how many a resource has, such as the calls that a SIP trunk carries at once, by date.

They are what a fee per channel is owed for. How many calls a network lets through is its own affair.
"""

from typing import ClassVar

from msgspec import Struct

from .hierarchy import Hierarchy
from .member import placed_since
from .refusals import InvariantBroken, Refused, check_text

CHANNELS_MAX = 1_000_000


class ChannelsSet(Struct, frozen=True, array_like=True):
    """A resource has so many channels from a moment on."""

    topic: ClassVar[str] = "resource.channels_set"
    resource: str
    channels: int
    since: int
    note: str = ""


class SetChannels(Struct, frozen=True, array_like=True):
    """Let a resource have so many channels; `since` in microseconds, 0 for now."""

    resource: str
    channels: int
    since: int = 0
    note: str = ""


class Channels:
    """What was set last, of each resource that has any."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self.last: dict[str, ChannelsSet] = {}

    def decide(self, command: SetChannels, now: int) -> ChannelsSet:
        check_text("note", command.note, empty=True)
        resource = self._hierarchy.living(command.resource)
        if not 0 <= command.channels <= CHANNELS_MAX:
            raise Refused("channels_out_of_range", channels=command.channels, channels_max=CHANNELS_MAX)
        since = command.since or now
        last = self.last.get(resource.id)
        earliest = max(placed_since(resource.stays), -1 if last is None else last.since + 1)
        if since < earliest:
            raise Refused("channels_set_later", resource=resource.id, since=since, earliest=earliest)
        return ChannelsSet(resource.id, command.channels, since, command.note)

    def apply(self, event: ChannelsSet) -> None:
        last = self.last.get(event.resource)
        if last is not None and last.since >= event.since:
            raise InvariantBroken("channels are dated one after the other", resource=event.resource)
        self.last[event.resource] = event
