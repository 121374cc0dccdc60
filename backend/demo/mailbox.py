"""The demonstration's mailbox: a mail server on this machine that takes letters and sends none.

It knows as much of SMTP as one sender needs that asks for no encryption and no login.
"""

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage

from ..settings import MailServer

SENDER = "notices@meridian.example"
LETTERS_MAX = 100
_ANSWERS = {b"HELO": "250 mailbox", b"EHLO": "250 mailbox", b"MAIL": "250 ok", b"RCPT": "250 ok"}


@asynccontextmanager
async def mailbox(letters: list[EmailMessage]) -> AsyncIterator[MailServer]:
    """While the block lasts, what is sent there is put among the letters."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _converse(reader, writer, letters)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            """Whoever spoke is gone, and sends the letter again if it is not here."""
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    try:
        yield MailServer("127.0.0.1", server.sockets[0].getsockname()[1], "none", SENDER)
    finally:
        server.close()


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, letters: list[EmailMessage]
) -> None:
    writer.write(b"220 mailbox\r\n")
    while line := await reader.readline():
        verb = line[:4].upper()
        if verb == b"DATA":
            writer.write(b"354 go on\r\n")
            letter = await reader.readuntil(b"\r\n.\r\n")
            if len(letters) < LETTERS_MAX:
                letters.append(_read(letter))
            answer = "250 taken"
        else:
            answer = "221 bye" if verb == b"QUIT" else _ANSWERS.get(verb, "250 ok")
        writer.write(answer.encode() + b"\r\n")
        await writer.drain()
        if verb == b"QUIT":
            return


def _read(letter: bytes) -> EmailMessage:
    told = email.message_from_bytes(letter.removesuffix(b".\r\n"), policy=email.policy.default)
    assert isinstance(told, EmailMessage)
    return told
