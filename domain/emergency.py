"""Emergency numbers: calls to them are never stopped, whoever is suspended and whatever is used up."""

import re

NUMBERS = ("000", "110", "112", "113", "115", "117", "118", "119", "911", "999")
"""As dialled, somewhere in the world. Two digits are an extension, here."""

_EMERGENCY = re.compile(rf"(?:\+[0-9]{{1,3}})?(?:{'|'.join(NUMBERS)})|urn:service:sos(?:\..*)?")


def is_emergency(counterpart: str) -> bool:
    """Whether this is an emergency number, also behind its country's; or a SIP network's name of one."""
    return _EMERGENCY.fullmatch(counterpart) is not None
