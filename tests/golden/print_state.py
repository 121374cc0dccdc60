"""Prints two SHA-256: of the story's events as they are stored, and of the state they lead to."""

from hashlib import sha256

from story import play

from allotment.domain.canonical import lines
from allotment.domain.events import encode
from allotment.domain.tenant import Tenant


def main() -> None:
    tenant, stored = Tenant(), sha256()
    for events in play():
        for event in events:
            stored.update(encode(event, "story", bytes(8)))
            tenant.apply(event)
    print(stored.hexdigest(), sha256(b"".join(lines(tenant))).hexdigest())


if __name__ == "__main__":
    main()
