"""Guarding: which addresses a webhook may reach. Never our own network, whatever its name resolves to.

A name is resolved once, every address it has is looked at, and the connection goes to one of those that
were: a name that means something else a moment later changes nothing.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from msgspec import Struct

URL_MAX = 2_000
RESOLVE_SECONDS_MAX = 3.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Unreachable(Exception):
    """Where a webhook may not, or cannot, go. `code` is part of the API."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Target(Struct, frozen=True):
    """A webhook's address, taken apart."""

    url: str
    scheme: str
    host: str
    port: int

    @property
    def origin(self) -> str:
        """As far as it may be told: what follows may be a secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.scheme == "https" else 80
        return f"{self.scheme}://{host}" + ("" if self.port == usual else f":{self.port}")


def target_of(url: str, *, private: bool) -> Target:
    """Raises Unreachable for what no webhook can be."""
    if len(url) > URL_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise Unreachable("bad_url", f"give an address of at most {URL_MAX} ASCII characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise Unreachable("bad_url", "this is no address such as https://hooks.example.com/path") from None
    if parts.scheme not in (("https", "http") if private else ("https",)):
        raise Unreachable("bad_url", "the address must begin with https://")
    if parts.username is not None or parts.password is not None or parts.fragment or not host or port == 0:
        raise Unreachable("bad_url", "give an address with a host, and without a user or a fragment")
    return Target(url, parts.scheme, host, port or (443 if parts.scheme == "https" else 80))


async def resolved(target: Target, *, private: bool) -> str:
    """An address of the target that may be reached; Unreachable if one of them may not."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_SECONDS_MAX):
            found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        raise Unreachable("unknown_host", f"the name {target.host} cannot be resolved") from None
    addresses = [str(address[4][0]) for address in found]
    return checked(addresses, private=private)


def checked(addresses: Sequence[str], *, private: bool) -> str:
    """The first of them, if all may be reached."""
    if not addresses:
        raise Unreachable("unknown_host", "the name has no address")
    if not private:
        for address in addresses:
            if not is_public(address):
                raise Unreachable("private_address", "the name leads to an address of a private network")
    return addresses[0]


def is_public(text: str) -> bool:
    """Whether an address belongs to the public internet, also through whatever it is wrapped in."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return all(
        one.is_global and not one.is_multicast and not one.is_reserved and not one.is_unspecified
        for one in _unwrapped(address)
    )


def _unwrapped(address: Address) -> list[Address]:
    """The address that packets would reach in the end. Mapped ones are judged by what they map."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    inner: list[Address] = []
    if address.sixtofour is not None:
        inner.append(address.sixtofour)
    if address.teredo is not None:
        inner += address.teredo
    if address in _NAT64 or not int(address) >> 32:
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    if address in _NAT64:
        # The prefix itself is for local use, and leads wherever its last bytes say.
        return inner
    return [address, *inner]
