"""One request to a webhook: over TLS to the address that was checked, bounded in all it does."""

import asyncio
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fixtures_loop import in_a_loop

from allotment.backend.notifying.webhooks import WebhookClient

SECRET = "whsec_c2VjcmV0"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


def certificate(name, folder):
    """A key and a certificate that vouches for this name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@asynccontextmanager
async def receiver(answer=NO_CONTENT, tls=None, seconds=0.0):
    async def serve(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(seconds)
            writer.write(answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.transport.abort() if seconds else writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]
        # Whoever is still being served shall be done before the loop is.
        await asyncio.sleep(2 * seconds + 0.05)


async def post(url, **options):
    async with WebhookClient(private=True, **options) as client:
        return await client.post(url, [SECRET], "msg_1", b"{}")


@pytest.mark.parametrize(("name", "taken"), [("localhost", True), ("other.example.com", False)])
def test_the_certificate_must_be_of_the_name_though_the_connection_goes_to_its_address(tmp_path, name, taken):
    path = certificate(name, tmp_path)

    async def run():
        serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=path)
        serving.load_cert_chain(path)
        async with receiver(tls=serving) as port:
            return await post(f"https://localhost:{port}/", trust=trusting)

    tried = asyncio.run(run())
    assert tried.ok is taken, tried
    assert taken or "ertificate" in tried.detail


@in_a_loop
async def test_one_that_nobody_vouches_for_is_not_told():
    async with receiver() as port:
        tried = await post(f"https://localhost:{port}/")
    assert not tried.ok


@in_a_loop
async def test_who_takes_too_long_is_given_up():
    async with receiver(seconds=0.5) as port:
        tried = await post(f"http://localhost:{port}/", seconds=0.2)
    assert (tried.ok, tried.detail) == (False, "no answer in 0.2 s")


@in_a_loop
async def test_a_redirect_is_not_followed():
    answer = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    async with receiver(answer) as port:
        tried = await post(f"http://localhost:{port}/")
    assert (tried.ok, tried.detail) == (False, "302")


@in_a_loop
async def test_of_an_endless_answer_little_is_read():
    async with receiver(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(2_000_000)) as port:
        tried = await post(f"http://localhost:{port}/", seconds=5)
    assert (tried.ok, tried.detail) == (True, "200")


@in_a_loop
async def test_nobody_there_is_told_as_such():
    tried = await post("http://127.0.0.1:1/")
    assert not tried.ok
    assert "ConnectError" in tried.detail
