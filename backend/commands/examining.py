"""`allotment doctor`: everything an installation needs, looked at; each problem with its remedy."""

import asyncio
import os
import platform
from importlib.metadata import version
from typing import NamedTuple

import msgspec
import psycopg
import rich_click as click

from ..believing import verifier_for
from ..embedded import embedded_servers
from ..running import is_free, newest_version, schema_version, servers
from ..settings import Settings, SettingsError
from .options import JSON
from .output import say, settings_for_command, tell_json

LIBRARIES = (
    "allotment",
    "granian",
    "litestar",
    "strawberry-graphql",
    "eventsourcing",
    "psycopg",
    "nats-py",
    "msgspec",
)
POSTGRES_MIN = 160_000


class Finding(NamedTuple):
    """One thing that was looked at. `remedy` is empty where all is well."""

    what: str
    found: str
    remedy: str = ""


@click.command()
@JSON
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Look at everything this installation needs; each problem with its remedy.

    Exits with 1 if there is a problem.
    """
    findings = _examine()
    ok = not any(finding.remedy for finding in findings)
    if as_json:
        told = [{"what": f.what, "ok": not f.remedy, "found": f.found, "remedy": f.remedy} for f in findings]
        tell_json({"ok": ok, "findings": told})
    else:
        for finding in findings:
            say(f"{'problem' if finding.remedy else 'ok':<8} {finding.what:<11} {finding.found}")
            if finding.remedy:
                say(f"{'':<8} {'':<11} -> {finding.remedy}")
    ctx.exit(0 if ok else 1)


def _examine() -> list[Finding]:
    findings = [
        Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        Finding("versions", ", ".join(f"{name} {version(name)}" for name in LIBRARIES)),
        _charging(),
    ]
    try:
        settings = settings_for_command()
    except SettingsError as error:
        return [*findings, Finding("settings", "cannot be used", str(error))]
    return [
        *findings,
        Finding("settings", f"{settings.environment}, home {settings.home}"),
        _home(settings),
        _port(settings),
        _tokens(settings),
        *_database(settings),
        _nats(settings),
        _mail(settings),
    ]


def _charging() -> Finding:
    """Either is right; one is faster."""
    # Here, not above: whoever decides sets it up, and takes longer to load than most commands to run.
    from ..deciding import charged_by  # noqa: PLC0415

    return Finding("charging", charged_by())


def _home(settings: Settings) -> Finding:
    folder = settings.home
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if os.access(folder, os.W_OK | os.X_OK):
        return Finding("home", f"{settings.home} can be written to")
    return Finding(
        "home", f"{settings.home} cannot be written to", "Set ALLOTMENT_HOME to a folder of yours."
    )


def _port(settings: Settings) -> Finding:
    where = f"{settings.host}:{settings.port}"
    if is_free(settings.host, settings.port):
        return Finding("port", f"{where} is free")
    return Finding(
        "port",
        f"{where} is in use",
        "Stop what listens there (perhaps `allotment serve`), or set ALLOTMENT_PORT.",
    )


def _tokens(settings: Settings) -> Finding:
    if settings.issuer is None and not settings.production:
        return Finding("tokens", "the built-in development issuer")
    try:
        verifier_for(settings, None)
    except ValueError as error:
        return Finding("tokens", "could not be checked", f"{error}. Set ALLOTMENT_JWKS right.")
    except SettingsError as error:
        return Finding("tokens", "could not be checked", str(error))
    return Finding("tokens", f"issued by {settings.issuer}")


def _database(settings: Settings) -> list[Finding]:
    try:
        with servers(
            msgspec.structs.replace(settings, nats_url=settings.nats_url or "nats://unused"), nats=False
        ) as (url, _):
            with psycopg.connect(url, connect_timeout=5) as db:
                number = db.info.server_version
            told = f"PostgreSQL {number // 10_000}.{number % 10_000}" + (
                "" if settings.database_url else ", embedded"
            )
            old = "Use PostgreSQL 16 or later." if number < POSTGRES_MIN else ""
            return [Finding("database", told, old), _schema(url, settings)]
    except psycopg.Error as error:
        first = str(error).strip().splitlines()[0]
        return [
            Finding(
                "database",
                f"not reachable: {first}",
                "Set DATABASE_URL to a database that runs and lets you in.",
            )
        ]
    except Exception as error:  # noqa: BLE001  (whatever is wrong is what we are looking for)
        return [Finding("database", "did not start", " ".join(str(error).split()))]


def _schema(url: str, settings: Settings) -> Finding:
    now, head = schema_version(url), newest_version()
    if now == head:
        return Finding("migrations", f"at head, {head}")
    if settings.production:
        return Finding("migrations", f"at {now or 'nothing'}, head is {head}", "Run `allotment migrate`.")
    return Finding("migrations", f"at {now or 'nothing'}; the next command brings it to {head}")


def _nats(settings: Settings) -> Finding:
    try:
        if settings.nats_url:
            return Finding("nats", asyncio.run(_stream_account(settings.nats_url)))
        if settings.production:
            return Finding("nats", "NATS_URL is not set", "Set NATS_URL to a NATS with JetStream.")
        with embedded_servers(settings.home, postgres=False, nats=True) as started:
            return Finding("nats", asyncio.run(_stream_account(started.nats_url)) + ", embedded")
    except Exception as error:  # noqa: BLE001
        told = " ".join(str(error).split()) or type(error).__name__
        return Finding(
            "nats", f"not usable: {told}", "Set NATS_URL to a NATS that runs, with JetStream (`-js`)."
        )


def _mail(settings: Settings) -> Finding:
    server = settings.smtp
    if server is None:
        return Finding("mail", "ALLOTMENT_SMTP_HOST is not set: notices by e-mail wait")
    from ..notifying.mail import greet  # noqa: PLC0415

    try:
        return Finding("mail", asyncio.run(greet(server)))
    except Exception as error:  # noqa: BLE001
        told = " ".join(str(error).split()) or type(error).__name__
        return Finding(
            "mail", f"not usable: {told}", "Set ALLOTMENT_SMTP_HOST, _PORT, _TLS, _USER and _PASSWORD right."
        )


async def _stream_account(url: str) -> str:
    import nats  # noqa: PLC0415

    async def quiet(_: Exception) -> None:
        """The attempt itself fails, and says why."""

    client = await nats.connect(
        url, connect_timeout=3, max_reconnect_attempts=0, allow_reconnect=False, error_cb=quiet
    )
    try:
        account = await client.jetstream().account_info()
        server = client.connected_server_version
        number = f"{server.major}.{server.minor}.{server.patch}"
        return f"NATS {number} with JetStream, {account.streams} streams"
    finally:
        await client.close()
