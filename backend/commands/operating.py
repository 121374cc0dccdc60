"""`allotment serve`, `migrate`, `doctor`, `token`, `schema`: running the product."""

import os
from contextlib import AbstractAsyncContextManager, nullcontext, suppress

import msgspec
import rich_click as click

from ...tenants.identity import ROLES
from ...tenants.onboarding import find_tenant
from ..believing import development_issuer, issuer_address
from ..offspring import projector_process
from ..running import (
    Product,
    running,
    servers,
    with_free_port,
)
from ..settings import WORKERS_MAX, SettingsError
from ..stopping import complete
from ..tuning import tuned
from .options import JSON, TENANT
from .output import note, say, settings_for_command, tell_json

VIEWS = ("child", "here", "elsewhere")


@click.command()
@click.option(
    "--workers",
    type=click.IntRange(1, WORKERS_MAX),
    default=None,
    help="Processes that serve, in place of ALLOTMENT_WORKERS.",
)
@click.option(
    "--views",
    type=click.Choice(VIEWS),
    default="child",
    show_default=True,
    help="Who keeps them up: a process beside, those that serve, or `allotment project` elsewhere.",
)
def serve(workers: int | None, views: str) -> None:
    """Serve the API, follow NATS, keep the views up to date; until Ctrl-C or SIGTERM.

    Where it listens and what it uses, the environment says: ALLOTMENT_HOST, ALLOTMENT_PORT,
    DATABASE_URL, NATS_URL. `allotment doctor` checks them.

    Several workers share the port and the tenants; so do those on several machines that use one
    database and one NATS. SIGTERM hands the tenants over first. SIGHUP replaces one worker after the other.

    \b
    ALLOTMENT_PORT=9000 allotment serve
    allotment serve --workers 4
    """
    settings = settings_for_command(quiet=False)
    if not settings.port:
        settings = with_free_port(settings)
    count = workers or settings.workers
    try:
        with running(settings, nats=True) as product, tuned():
            serving = _serve_alone(product, views) if count == 1 else _serve_together(product, count, views)
            complete(serving)
    except KeyboardInterrupt:
        pass
    note("Stopped.")


async def _serve_alone(product: Product, views: str) -> None:
    # Here, not above: the web takes longer to load than most commands to run.
    from ..working import work  # noqa: PLC0415

    async with _projector(product, views):
        await work(product, ready=lambda: _say_where(product), projected_elsewhere=views != "here")


async def _serve_together(product: Product, count: int, views: str) -> None:
    from ..crew import serve_together  # noqa: PLC0415

    async with _projector(product, views):
        await serve_together(
            product, count, ready=lambda: _say_where(product), projected_elsewhere=views != "here"
        )


def _projector(product: Product, views: str) -> AbstractAsyncContextManager[object]:
    if views != "child":
        return nullcontext()
    return projector_process(product.database_url, product.nats_url)


def _say_where(product: Product) -> None:
    address = issuer_address(product.settings)
    note(f"Allotment serves {address} (GraphQL at /graphql, usage at /v1/usage).")


@click.command(hidden=True)
@click.option("--parent", type=int, required=True, help="The process that started it, and outlives it.")
@click.option("--listen-fd", type=int, required=True, help="The socket that listens.")
@click.option("--ready-fd", type=int, required=True, help="Where it says that it serves.")
@click.option("--servers-of-parent", is_flag=True, help="PostgreSQL ends with the parent.")
@click.option("--projected-elsewhere", is_flag=True, help="It keeps no views up itself.")
def worker(
    parent: int, listen_fd: int, ready_fd: int, servers_of_parent: bool, projected_elsewhere: bool
) -> None:
    """One of the processes of `allotment serve --workers`, which starts them.

    \b
    allotment serve --workers 2
    """
    from ..orphans import Parent  # noqa: PLC0415
    from ..working import work  # noqa: PLC0415

    watched = Parent(parent, listen_fd, has_servers=servers_of_parent)
    watched.watch()
    settings = settings_for_command(quiet=False)

    def ready() -> None:
        os.write(ready_fd, b"ready")
        os.close(ready_fd)

    with suppress(KeyboardInterrupt), running(settings, nats=True) as product, tuned():
        complete(work(product, ready=ready, parent=watched, projected_elsewhere=projected_elsewhere))


@click.command(name="migrate")
@JSON
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
@TENANT
@click.option("--role", type=click.Choice(sorted(ROLES)), required=True, help="What the token may do.")
@click.option("--node", "nodes", multiple=True, help="Bind it to this node and what is below; repeatable.")
@click.option("--subject", default="", help="An opaque id of who it is for; else one made of the role.")
@click.option(
    "--hours", type=click.IntRange(1, 168), default=12, show_default=True, help="How long it is valid."
)
@click.option(
    "--issuer", "address", default="", help="The issuer's name, where the API is not at ALLOTMENT_PORT."
)
@JSON
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
@click.option("--tariff", is_flag=True, help="The JSON Schema of tariff files, for your editor, instead.")
@click.option("--own-rates", is_flag=True, help="That of files of own rates, instead.")
def schema(*, tariff: bool, own_rates: bool) -> None:
    """Print the GraphQL schema (SDL)."""
    if own_rates:
        from ...tenants.own_rates_file import own_rates_schema_document  # noqa: PLC0415

        click.echo(own_rates_schema_document(), nl=False)
        return
    if tariff:
        from ...tenants.tariff_file import tariff_schema_document  # noqa: PLC0415

        click.echo(tariff_schema_document(), nl=False)
        return
    from ...graphql.schema import schema_sdl  # noqa: PLC0415

    click.echo(schema_sdl(), nl=False)
