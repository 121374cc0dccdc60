"""What the API needs of whoever runs it. `backend` implements it; tests may too.

A request acts for one principal in one tenant, both from its token. Reading happens in threads,
one read per answer; changing happens through `submit`, which returns when the outcome is stored.
"""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar
from uuid import UUID

from strawberry.types import Info as StrawberryInfo

from ..domain.difference import Difference
from ..domain.events import Recorded
from ..domain.inventory import CorrectInventory
from ..domain.inventory_dated import AnyCorrection
from ..domain.limit import SetLimit
from ..domain.policy import SetPolicy
from ..domain.rating_job import Scope, StartRating
from ..domain.tenant import Command, Event, Tenant
from ..domain.trying import Trial
from ..projections.suspense import SuspenseFilter
from ..projections.trees import Trees
from ..tenants.identity import Principal
from ..tenants.isolation import Connection
from ..tenants.lines import TakeStock, Unsealed

R = TypeVar("R")


class Answer(Protocol):
    """What a command led to, and where it stands in the log."""

    @property
    def events(self) -> tuple[Event, ...]: ...
    @property
    def first_seq(self) -> int: ...
    @property
    def last_seq(self) -> int: ...
    @property
    def repeated(self) -> bool: ...
    @property
    def dry(self) -> bool: ...


class CorrectionStanding(NamedTuple):
    """How far a correction of the hierarchy is."""

    reached: int | None
    """The seq that was looked at last, where it runs here ..."""
    end: int | None
    """... and the one up to which it looks."""
    sessions: int
    """That run, and are charged where they began: it waits for them."""


class TryAgain(Exception):
    """Nothing is known to have happened; the same request, with the same key, may be sent again."""

    def __init__(self, code: str, message: str, retry_after_ms: int) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_ms = retry_after_ms
        self.extensions = {"code": code, "retryAfterMs": retry_after_ms}


class Unreadable(Exception):
    """What was asked about the past cannot be answered; says why."""

    extensions: ClassVar[dict[str, str]] = {"code": "unreadable"}


class TooSlow(Exception):
    """A listener does not take what it asked for."""

    MESSAGE = "more happens than you take: subscribe again with afterSeq, and take it sooner"

    def __init__(self) -> None:
        super().__init__(self.MESSAGE)


class BadAddress(Exception):
    """A webhook may not go there; says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Delivered(Protocol):
    """A line of the delivery log."""

    @property
    def seq(self) -> int: ...
    @property
    def topic(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def replays(self) -> int: ...
    @property
    def due_at(self) -> int: ...
    @property
    def tried_at(self) -> int | None: ...
    @property
    def took_ms(self) -> int | None: ...
    @property
    def detail(self) -> str: ...


class Outlets(Protocol):
    """Where the tenant's notices go: what stands beside the log."""

    async def checked(self, url: str) -> str:
        """The origin of an address that a webhook may have; BadAddress for any other."""
        ...

    async def name(self, text: str) -> bytes:
        """A keyed hash: the same text gives the same, and nobody can tell the text."""
        ...

    async def secret(self, name: bytes) -> str:
        """The webhook secret of this name."""
        ...

    async def keep(self, address: str) -> None:
        """Keep it, sealed, under its name; and look at the tenant's log from now on."""
        ...

    async def forget(self, ref: bytes) -> None: ...

    async def deliveries(
        self, channel: str, endpoint: str, status: str | None, first: int, before: int | None
    ) -> Sequence[Delivered]:
        """What one place was told, the newest event first."""
        ...

    async def try_at_once(self, webhook: str) -> None:
        """However long it was to rest."""
        ...


class BulkOutcome(Protocol):
    """What became of one record that waited."""

    @property
    def usage_id(self) -> bytes: ...
    @property
    def source(self) -> str: ...
    @property
    def record_id(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def detail(self) -> str: ...


class BulkReport(Protocol):
    """What became of records that waited, and where to go on."""

    looked_at: int
    charged: int
    rejected: int
    suspended: int
    amended: int
    dismissed: int
    asked: int
    kept: int
    passed_over: int
    amount: int
    after: int
    left: int

    @property
    def problems(self) -> Sequence[BulkOutcome]: ...


class Corrections(Protocol):
    """Letting records leave suspense; each change is stored and can be read when it is answered."""

    async def token_of(self, line: str) -> bytes:
        """The keyed hash by which the records of a line are found."""
        ...

    async def amend(
        self, usage_id: bytes, changes: dict[str, Any], idempotency_key: str, note: str, *, dry: bool
    ) -> Answer:
        """Raises Refused or TryAgain."""
        ...

    async def bulk(
        self,
        act: Literal["recycle", "dismiss", "keep", "reread"],
        wanted: SuspenseFilter,
        usage_ids: Sequence[bytes],
        idempotency_key: str,
        note: str,
        *,
        after: int,
        most: int,
        dry: bool,
        format: str = "",
        accept_late: bool = False,
    ) -> BulkReport:
        """So many of those that wait, oldest first after a seq. `format`: a name, or a declaration.

        Raises Refused or TryAgain.
        """
        ...


class Context(Protocol):
    """One request."""

    @property
    def principal(self) -> Principal: ...

    @property
    def trees(self) -> Trees:
        """Parts of the hierarchy that readers keep."""
        ...

    @property
    def tenant_id(self) -> UUID:
        """The token's tenant. Every reading and change below is bound to it."""
        ...

    @property
    def outlets(self) -> Outlets: ...

    @property
    def corrections(self) -> Corrections: ...

    def now(self) -> int:
        """Microseconds since the epoch, UTC."""
        ...

    async def state(self) -> Tenant:
        """What the tenant's next decision is made on, for a look: who exists, which tariffs there are."""
        ...

    async def submit(self, command: Command | Unsealed, idempotency_key: str, *, dry: bool = False) -> Answer:
        """Carry out a command once and let later reads see it; raises Refused or TryAgain.

        `dry`: only tell what it would lead to.
        """
        ...

    async def try_policy(
        self, policy: SetPolicy, limits: Sequence[SetLimit], starts_at: int, ends_at: int
    ) -> tuple[int, Trial]:
        """Decide the usage of a past time again, without and with a policy; the seq that was looked up to.

        Raises Refused for what could not be set, or where the log is too long for one request.
        """
        ...

    def normal(self, line: str, region: str) -> str:
        """A line as intake would write it, of a number without "+" in this country.

        Raises DefinitionError where that is none.
        """
        ...

    async def dated(self, stock: TakeStock, job: str, shown: str) -> CorrectInventory:
        """An inventory whose lines may be about moments that are over, sealed."""
        ...

    async def preview_rating(
        self, scope: Scope, correction: AnyCorrection | None = None
    ) -> tuple[int, Difference]:
        """What rating a scope again would change, or a correction, and the seq that was looked up to.

        Raises Refused for what could not be begun, or where the log is too long for one request.
        """
        ...

    async def start_rating(self, command: StartRating | AnyCorrection, *, dry: bool = False) -> Answer:
        """Begin a job, once for each name. Raises as `submit`."""
        ...

    async def was_begun(self, job: str) -> bool:
        """Whether there was ever a job of this name."""
        ...

    async def correction_standing(self, job: str) -> CorrectionStanding:
        """How far a correction of the hierarchy is."""
        ...

    def rating_reached(self, job: str) -> int | None:
        """How far through the log a job is that runs here."""
        ...

    async def read(
        self,
        query: Callable[[Connection], R],
        views: Sequence[str],
        *,
        as_of: int | None = None,
        at_least: int = 0,
    ) -> tuple[int, R]:
        """A query on these views, and the seq it tells of: now, as of a seq, or not before one.

        Raises Unreadable for a seq that is not in the log, TryAgain when views lag too long.
        """
        ...

    async def seq_at(self, recorded_at: int) -> int:
        """The last seq recorded at or before a moment; 0 before the first."""
        ...

    def follow(self, topics: Collection[str], after: int | None) -> AsyncIterator[Sequence[Recorded]]:
        """Events of these topics in batches as they are committed; first those after a seq, if one is given.

        Raises TooSlow.
        """
        ...

    def notice_id(self, seq: int) -> str:
        """Of an event, wherever it is told."""
        ...

    async def events(self, seqs: Sequence[int]) -> list[Recorded]:
        """Stored events by seq, in order."""
        ...

    async def answer_to(self, command_key: bytes) -> list[Recorded]:
        """The events that the command with this key led to, from the log."""
        ...

    async def opened(self, subjects: Sequence[bytes], sealed: bytes, context: bytes) -> bytes | None:
        """A sealed field under whichever subject's key fits; None when the person was erased."""
        ...

    async def label_token(self, label: str) -> bytes:
        """By what a resource with this label is found."""
        ...


Info = StrawberryInfo[Context, Any]
