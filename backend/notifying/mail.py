"""E-mail: letters to people, through the mail server of the settings."""

from email.message import EmailMessage

import aiosmtplib
from msgspec import Struct

from ..settings import MailServer

SECONDS_MAX = 10.0
PERMANENT = 500
"""From this reply on the server says that trying again is of no use."""


class Posted(Struct, frozen=True):
    """What came of handing a letter over."""

    ok: bool
    detail: str
    hopeless: bool = False


async def post(server: MailServer, message: EmailMessage) -> Posted:
    """Raises nothing: whatever happens is told, and no address with it."""
    try:
        await aiosmtplib.send(
            message,
            hostname=server.host,
            port=server.port,
            use_tls=server.tls == "tls",
            start_tls=server.tls == "starttls",
            username=server.user or None,
            password=server.password or None,
            timeout=SECONDS_MAX,
        )
    except aiosmtplib.SMTPRecipientsRefused as error:
        codes = [refused.code for refused in error.recipients]
        return Posted(False, f"the address is refused: {codes}", min(codes) >= PERMANENT)
    except aiosmtplib.SMTPResponseException as error:
        return Posted(False, f"the mail server answers {error.code}")
    except (aiosmtplib.SMTPException, OSError) as error:
        return Posted(False, type(error).__name__)
    return Posted(True, "handed over")


async def greet(server: MailServer) -> str:
    """Whether the server lets us in; what it says of itself. Raises SMTPException or OSError."""
    client = aiosmtplib.SMTP(
        hostname=server.host,
        port=server.port,
        use_tls=server.tls == "tls",
        start_tls=server.tls == "starttls",
        timeout=SECONDS_MAX,
    )
    async with client:
        if server.user:
            await client.login(server.user, server.password)
        await client.noop()
    return f"{server.host}:{server.port} takes mail"
