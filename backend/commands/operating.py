"""`allotment serve`, `migrate`, `doctor`, `token`, `schema`: running the product."""

import asyncio

import msgspec
import rich_click as click

from ...tenants.identity import ROLES
from ...tenants.onboarding import find_tenant
from ..believing import development_issuer, issuer_address, verifier_for
from ..messaging import Messenger
from ..running import (
    Product,
    running,
    servers,
    with_free_port,
)
from ..settings import SettingsError
from ..stopping import complete, until_told
from ..tuning import tuned
from .output import note, say, settings_for_command, tell_json

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")


@click.command()
def serve() -> None:
    """Serve the API, follow NATS, keep the views up to date; until Ctrl-C or SIGTERM.

    Where it listens and what it uses, the environment says: ALLOTMENT_HOST, ALLOTMENT_PORT,
    DATABASE_URL, NATS_URL. `allotment doctor` checks them.

    \b
    ALLOTMENT_PORT=9000 allotment serve
    """
    settings = settings_for_command(quiet=False)
    if not settings.port:
        settings = with_free_port(settings)
    try:
        with running(settings, nats=True) as product, tuned():
            complete(_serve(product))
    except KeyboardInterrupt:
        pass
    note("Stopped.")


async def _serve(product: Product) -> None:
    # Here, not above: the web takes longer to load than most commands to run.
    from ..app import create_app  # noqa: PLC0415
    from ..serving import serve_until, serving, watch_database  # noqa: PLC0415

    settings = product.settings
    issuer = development_issuer(settings)
    verifier = verifier_for(settings, issuer)
    async with product.engine() as engine:
        messenger = Messenger(engine, product.nats_url)
        engine.on_commit = messenger.committed
        app = create_app(engine, verifier=verifier, issuer=issuer, settings=settings)
        async with messenger, serving(app, settings.host, settings.port) as server:
            note(f"Allotment serves {issuer_address(settings)} (GraphQL at /graphql, usage at /v1/usage).")
            tasks = [server]
            if settings.database_url is None:
                tasks.append(asyncio.create_task(watch_database(product.database_url), name="PostgreSQL"))
            await serve_until(until_told(), *tasks)


@click.command(name="migrate")
@_JSON
def migrate_command(as_json: bool) -> None:
    """Bring the database's schema to this version. Safe to repeat, and to run beside the old version.

    Connect as a role that may create roles, once; later as a member of `allotment_owner`.
    """
    from ...migrations.run import migrate  # noqa: PLC0415  (slow to load)

    settings = settings_for_command()
    with servers(settings, nats=False) as (url, _):
        before, after = migrate(url)
    if as_json:
        tell_json({"before": before, "after": after})
    elif before == after:
        say(f"The database is at {after} already.")
    else:
        say(f"Migrated from {before or 'nothing'} to {after}.")


@click.command()
@click.option("--tenant", "-t", "slug", required=True, help="Slug or id of the tenant.")
@click.option("--role", type=click.Choice(sorted(ROLES)), required=True, help="What the token may do.")
@click.option("--node", "nodes", multiple=True, help="Bind it to this node and what is below; repeatable.")
@click.option("--subject", default="", help="An opaque id of who it is for; else one made of the role.")
@click.option(
    "--hours", type=click.IntRange(1, 168), default=12, show_default=True, help="How long it is valid."
)
@click.option(
    "--issuer", "address", default="", help="The issuer's name, where the API is not at ALLOTMENT_PORT."
)
@_JSON
def token(
    slug: str,
    role: str,
    nodes: tuple[str, ...],
    subject: str,
    hours: int,
    address: str,
    as_json: bool,
) -> None:
    """Make an access token with the built-in issuer, for development.

    \b
    allotment token --tenant acme --role carrier
    allotment token --tenant acme --role telecoms_manager --node emea
    """
    settings = settings_for_command()
    with running(settings) as product:
        entry = find_tenant(product.isolation, slug)
    if address:
        host, _, port = address.removeprefix("http://").rpartition(":")
        if not host or not port.isdigit():
            raise click.BadParameter("give the address the API is served at, such as http://127.0.0.1:8080")
        settings = msgspec.structs.replace(settings, host=host, port=int(port))
    issuer = development_issuer(settings)
    if issuer is None:
        raise SettingsError(
            "Tokens come from your identity provider here: ALLOTMENT_ISSUER is set, or this is production."
        )
    made = issuer.mint(
        subject or f"development-{role}", entry.tenant_id, [role], nodes, lifetime_seconds=hours * 3600
    )
    if as_json:
        tell_json(
            {
                "access_token": made,
                "token_type": "Bearer",
                "expires_in": hours * 3600,
                "issuer": issuer.issuer,
            }
        )
    else:
        say(made)


@click.command()
def schema() -> None:
    """Print the GraphQL schema (SDL)."""
    from ...graphql.schema import schema_sdl  # noqa: PLC0415

    click.echo(schema_sdl(), nl=False)
