"""Running: from settings to a product that works, and back to nothing.

Servers come first (given, or embedded), then the schema, then the door to the data; each is
let go of in the opposite order. In production nothing is migrated behind anybody's back.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import psycopg
from msgspec import Struct

from ..tenants.isolation import Isolation
from ..tenants.sealing import RootKey
from .embedded import embedded_servers, servers_for
from .engine import Engine, wall_clock
from .log import Group
from .peers import Peers
from .placement import Placement
from .settings import Settings, SettingsError
from .sharing import Sharing
from .writer import Clock

CONNECT_SECONDS_MAX = 10


class Product(Struct, frozen=True):
    """What every command works with. The engine is opened by those that change something."""

    settings: Settings
    database_url: str
    nats_url: str
    """"" where no NATS was asked for."""
    isolation: Isolation
    reach_nats: Callable[[], str]
    """The address of NATS, for who finds that it is needed after all. Blocks."""

    def engine(
        self,
        *,
        clock: Clock = wall_clock,
        on_commit: Callable[[Group], None] | None = None,
        following: bool = True,
        serves: bool = False,
        projected_elsewhere: bool = False,
    ) -> Engine:
        """An engine among those of other workers. One that `serves` is given tenants, and asked by others.

        Any other one serves a tenant itself only while nobody else is there to do it.
        """
        placement = Placement(self.isolation, takes_tenants=serves)
        sharing = Sharing(placement, Peers(placement.me, self.reach_nats, listens=serves))
        return Engine(
            self.isolation,
            self.root_key(),
            clock=clock,
            on_commit=on_commit,
            following=following,
            sharing=sharing,
            projected_elsewhere=projected_elsewhere,
        )

    def root_key(self) -> RootKey:
        return RootKey(self.settings.root_key())


@contextmanager
def running(settings: Settings, *, nats: bool = False) -> Iterator[Product]:
    """The product on its servers, until the block ends."""
    with servers(settings, nats=nats) as (database_url, nats_url), ExitStack() as later:
        bring_to_head(settings, database_url)
        isolation = Isolation(database_url)

        def reach_nats() -> str:
            return nats_url or later.enter_context(_nats(settings))

        try:
            yield Product(settings, database_url, nats_url, isolation, reach_nats)
        finally:
            isolation.close()


@contextmanager
def _nats(settings: Settings) -> Iterator[str]:
    """NATS where others have it: as given, or the embedded server that runs here already."""
    if settings.nats_url:
        yield settings.nats_url
    else:
        with embedded_servers(settings.home, postgres=False, nats=True) as started:
            yield started.nats_url


@contextmanager
def servers(settings: Settings, *, nats: bool) -> Iterator[tuple[str, str]]:
    """The addresses of PostgreSQL and, where it is wanted, NATS: what is not used is not started."""
    if nats or settings.production:
        # Production needs both to be set: better told by the first command than by `serve`.
        with servers_for(settings) as urls:
            yield urls
    elif settings.database_url:
        yield settings.database_url, ""
    else:
        with embedded_servers(settings.home, postgres=True, nats=False) as started:
            yield started.database_url, ""


def bring_to_head(settings: Settings, database_url: str) -> None:
    """Migrate in development; in production, insist that somebody did."""
    now, head = schema_version(database_url), newest_version()
    if now == head:
        return
    if settings.production:
        raise SettingsError(
            f"The database is at schema version {now or 'none'}, this program needs {head}."
            " Run `allotment migrate` first."
        )
    # Here, not above: alembic takes longer to load than most commands to run.
    from ..migrations.run import migrate  # noqa: PLC0415

    migrate(database_url)


def schema_version(database_url: str) -> str | None:
    """What the database was migrated to; None when it is empty."""
    with psycopg.connect(database_url, connect_timeout=CONNECT_SECONDS_MAX) as db:
        known = db.execute("SELECT to_regclass('allotment.alembic_version')").fetchone()
        if not known or known[0] is None:
            return None
        found = db.execute("SELECT version_num FROM allotment.alembic_version").fetchone()
        return str(found[0]) if found else None


def newest_version() -> str:
    """Alembic's head, by the names of the files: they begin with their revision."""
    folder = Path(__file__).parents[1] / "migrations" / "versions"
    return max(path.name.partition("_")[0] for path in folder.glob("[0-9]*_*.py"))


# --- ports ---------------------------------------------------------------------------------------


def with_free_port(settings: Settings) -> Settings:
    """The same settings with a port nobody listens on: the one named, or else any."""
    if settings.port and is_free(settings.host, settings.port):
        return settings
    with socket.socket(_family(settings.host)) as probe:
        probe.bind((settings.host, 0))
        return msgspec.structs.replace(settings, port=probe.getsockname()[1])


def is_free(host: str, port: int) -> bool:
    with socket.socket(_family(host)) as probe:
        # As the server itself does: a port that only waits for its last connections is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
