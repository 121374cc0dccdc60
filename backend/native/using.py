"""Whether a slice of usage is charged in native code, and how Python asks for it.

`slices` is built when the product is installed, where there is a C compiler. Each of its functions
does what a piece of Python beside it does, byte for byte, and says where it leaves it to that: so
everything works without it, and there is one description of what is right. It is set up only with
what it was written for: another form of a record or a charge, and nothing native is used.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol, cast
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ...domain.charging import CORPORATE, STEERING_DEFAULT, UsageCharged
from ...domain.events import SCHEMA
from ...domain.member import Member
from ...domain.tariff import CompiledRate
from ...domain.usage import USAGE_TYPES, UsageRecord, pack_personal
from ...tenants.sealing import Sealer
from ..intake.gate import DIRECTIONS, MOMENT_MAX, MOMENT_MIN, QUANTITY_MAX, TEXT_MAX

INTERFACE = 9
"""Of the build that this can use: an older one that was left lying about is not."""

Prepared = tuple[UsageRecord, bytes, bytes, bytes, bytes]
"""A record that was not seen before; its key, digest, token and sealed part."""


class Ready(Protocol):
    """What each record of a slice is charged with; None for what is not plain."""

    def __len__(self) -> int: ...
    def __getitem__(self, place: int) -> Prepared | None: ...


class Slices(Protocol):
    """What is there in native code. Whoever is told None or False does it in Python."""

    INTERFACE: int
    HASHING: str
    SEALING: str

    def set_up(self, record: type[UsageRecord], limits: tuple[Any, ...], parts: tuple[Any, ...]) -> None: ...
    def all_sound(self, records: list[Any]) -> bool: ...
    def all_different(self, hashes: list[bytes]) -> bool: ...
    def identities(self, items: list[Any]) -> list[bytes] | None: ...
    def prepare(
        self,
        items: list[Any],
        hashes: list[bytes],
        repeated: set[bytes],
        young: dict[bytes, bytes],
        old: dict[bytes, bytes],
        sealing: Any,
        random: bytes,
    ) -> Ready | None: ...
    def prepared(self, prepared: list[Prepared | None]) -> Ready: ...
    def sealing(
        self,
        keyed: Any,
        tenant: bytes,
        token_of: Callable[[str], bytes],
        key_of: Callable[[bytes], bytes],
        token_key: bytes,
        tenant_key: bytes,
        wrapped: dict[bytes, bytes],
    ) -> Any: ...
    def charge(
        self,
        plain: Any,
        prepared: Ready,
        place: int,
        actors: list[str],
        oldest: int,
        latest: int,
        seq: int,
        outcomes: list[Any],
        states: list[bytes],
        keys: list[bytes],
        digests: list[bytes],
    ) -> int: ...
    def leaves(
        self,
        tenant: bytes,
        size: int,
        topics: list[str],
        recorded_at: int,
        keys: list[bytes | None],
        states: list[bytes],
    ) -> list[bytes] | None: ...
    def append_peaks(self, peaks: list[bytes], size: int, leaves: list[bytes]) -> bool: ...
    def copy_rows(
        self,
        header: bytes,
        trailer: bytes,
        seen: int,
        at: int,
        topics: list[str],
        states: list[bytes],
        keys: list[bytes | None],
        leaves: list[bytes],
    ) -> bytes | None: ...
    def hold(
        self,
        young: dict[bytes, bytes],
        days: dict[bytes, None],
        keys: list[bytes],
        digests: list[bytes],
        status: bytes,
    ) -> bool: ...
    def enter(self, shelves: bytearray, size_bits: int, keys: list[bytes]) -> int | None: ...
    def moments(self, shelves: bytearray, size_bits: int, identities: list[bytes]) -> list[bytes] | None: ...
    def occupied(self, shelves: bytes | bytearray) -> int | None: ...
    def hold_gathered(
        self, young: dict[bytes, bytes], keys: bytes, digests: bytes, status: bytes
    ) -> bool: ...
    def enter_gathered(
        self, shelves: bytearray, size_bits: int, keys: bytes, first: int, last: int
    ) -> int | None: ...
    def days_of(self, keys: bytes) -> list[bytes]: ...
    def add_up(
        self,
        states: bytes,
        counts: tuple[int, ...],
        schema: int,
        digest_bytes: int,
        corporate: str,
        money: str,
    ) -> tuple[list[tuple[Any, ...]], bytes] | None: ...
    def count_up(self, counters: list[int], ceilings: list[int], pairs: bytes) -> bool: ...
    def tally(
        self,
        states: bytes,
        seqs: bytes,
        keys: bytes,
        times: bytes,
        schema: int,
        corporate: str,
        money: str,
        around: Callable[[int], tuple[int, int, int]],
        parents: bytes,
        number_of: Callable[[tuple[str, str, str, str, int, int]], int],
    ) -> tuple[Any, ...] | None: ...
    def together(self, held: list[bytes], more: bytes) -> tuple[list[bytes], bytes]: ...
    def read_lines(
        self,
        body: bytes,
        at: int,
        most: int,
        records: list[Any],
        limits: tuple[int, int, int],
        numbers: tuple[list[bytes | None], Callable[[str], bytes], Callable[[str], str]],
    ) -> int: ...
    def charged_together(
        self, records: list[Any], outcomes: list[Any], before: int
    ) -> tuple[str, int, int] | None: ...


class _Built:
    """The native module, once it is set up; and whether it is to be used."""

    slices: Slices | None = None
    missing = "it was not built: install again where there is a C compiler"
    used = True


def native() -> Slices | None:
    """The native module, if there is one; None: Python does it."""
    return _Built.slices if _Built.used else None


def told() -> str:
    """In a sentence, for whoever asks how this installation charges."""
    slices = native()
    if slices is None:
        return f"Python alone ({_Built.missing})" if _Built.used else "Python alone, as was asked for"
    return f"native code, hashing by {slices.HASHING}, sealing by {slices.SEALING}"


@contextmanager
def python_only() -> Iterator[None]:
    """For as long as this lasts nothing native is used: to compare both."""
    used, _Built.used = _Built.used, False
    try:
        yield
    finally:
        _Built.used = used


def set_up(outcome: type) -> None:
    """Tell the native module what it works with; called once, by whoever decides."""
    slices, frame = _built(), frame_of_charges()
    if slices is None:
        return
    if UsageRecord.__struct_fields__ != _FIELDS or frame is None:
        _Built.missing = "records or charges have another form than it was written for"
    else:
        limits = (frozenset(USAGE_TYPES), DIRECTIONS, QUANTITY_MAX, MOMENT_MIN, MOMENT_MAX, TEXT_MAX)
        slices.set_up(UsageRecord, limits, (CompiledRate, Member, outcome, "charged", *frame, SCHEMA))
        if _seals_as_python(slices):
            _Built.slices = slices
        else:
            _Built.missing = "the libcrypto of this Python seals in another way than `cryptography` does"


def reader() -> Slices | None:
    """The native module for who only reads stored charges, and needs nothing set up."""
    if not _Built.used or UsageCharged.__struct_fields__ != _STORED:
        return None
    return _Built.slices or _built()


def _built() -> Slices | None:
    try:
        slices = cast(Slices, import_module(".slices", __package__))
    except ImportError:
        return None
    if slices.INTERFACE != INTERFACE:
        _Built.missing = "its build is older or newer than the product: install again"
        return None
    return slices


def frame_of_charges() -> tuple[bytes, bytes, bytes] | None:
    """What is the same in every plain charge: before its source, who pays, and after its sealed part.

    None where its fields are not those, in that order, that the native code writes.
    """
    values: Sequence[Any] = (
        *("source", "record", (3, 2, 0), "data", "2026-01", 5, "outbound", 300, 70_000, 1, 2, "44", "zone"),
        *(CORPORATE, STEERING_DEFAULT, ((2, 9),), 8, 11, (12, 13), b"sealed"),
    )
    if UsageCharged.__struct_fields__[: len(values)] != _CHARGED:
        return None
    written, packed = _pack(UsageCharged(*values)), [_pack(value) for value in values]
    between = b"".join(packed)
    if written.count(between) != 1:
        return None
    head, tail = written.split(between)
    payer = _CHARGED.index("payer")
    return head, packed[payer] + packed[payer + 1], tail


def _seals_as_python(slices: Slices) -> bool:
    """Whether a record is sealed as `Sealer` seals it; also where sealing is left to that.

    First its subject's key is made by the sealer, then it is unwrapped natively.
    """
    record = UsageRecord("source", "record", "line", "data", 1, 5, "outbound", "counterpart")
    sealer, nonce, identity = Sealer(UUID(int=1), bytes(range(32))), bytes(range(12)), bytes(range(12))
    _, tenant, token_of, key_of, *_ = sealer.parts
    for _ in range(2):
        ready = slices.prepare([record], [identity], set(), {}, {}, slices.sealing(*sealer.parts), nonce)
        one = ready[0] if ready is not None else None
        if one is None:
            return slices.SEALING != "libcrypto"
        token = token_of(record.line)
        sealed = AESGCM(key_of(token)).encrypt(nonce, pack_personal(record), tenant + one[1])
        if one[3:] != (token, nonce + sealed):
            return False
    return True


_pack = msgspec.msgpack.Encoder().encode
_FIELDS = (
    *("source", "record_id", "line", "usage_type", "quantity", "started_at"),
    *("direction", "counterpart", "attributes"),
)
_CHARGED = (
    *("source", "record_id", "path", "usage_type", "period", "started_at", "direction", "quantity", "billed"),
    *(
        "tariff",
        "rate",
        "prefix",
        "zone",
        "payer",
        "steering",
        "drawn",
        "overage",
        "amount",
        "exact",
        "sealed",
    ),
)
_STORED = (*_CHARGED, "credit", "ruling", "basis")
"""The fields of stored charges, of which older ones have fewer."""
