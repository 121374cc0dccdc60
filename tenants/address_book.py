"""The address book: where people and programs are reached, beside the log.

Events name an address by a keyed hash. What it is stands here, sealed under a key that follows from the
tenant's, so that it can be erased and the log stays as it is. The secrets of webhooks follow from the
tenant's key as well: they are stored nowhere.
"""

import base64
import hmac
import os
from collections.abc import Iterable
from hashlib import sha256
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .isolation import Connection, Isolation
from .sealing import KEY_BYTES, NONCE_BYTES, TOKEN_BYTES, RootKey

SECRET_PREFIX = "whsec_"  # noqa: S105  (what every secret begins with, by Standard Webhooks)


class AddressBook:
    """Of one tenant. It holds keys and no addresses, so that what is erased is gone."""

    def __init__(self, tenant: UUID, tenant_key: bytes) -> None:
        self._tenant = tenant
        self._cipher = AESGCM(_derived(tenant_key, b"allotment.address.1")[:KEY_BYTES])
        self._ref_key = _derived(tenant_key, b"allotment.address-ref.1")
        self._secret_key = _derived(tenant_key, b"allotment.webhook.1")

    def ref(self, text: str) -> bytes:
        """By which an address is named, and found again."""
        return hmac.digest(self._ref_key, text.encode(), sha256)[:TOKEN_BYTES]

    def secret(self, name: bytes) -> str:
        """A webhook's secret, in the form that libraries of Standard Webhooks take."""
        key = hmac.digest(self._secret_key, name, sha256)
        return SECRET_PREFIX + base64.b64encode(key).decode()

    def keep(self, db: Connection, address: str) -> bytes:
        ref, nonce = self.ref(address), os.urandom(NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, address.encode(), self._tenant.bytes + ref)
        db.execute(
            "INSERT INTO notice_addresses (ref, sealed) VALUES (%s, %s) ON CONFLICT DO NOTHING", (ref, sealed)
        )
        return ref

    def find(self, db: Connection, ref: bytes) -> str | None:
        """None when it was erased."""
        found = db.execute("SELECT sealed FROM notice_addresses WHERE ref = %s", (ref,)).fetchone()
        if found is None:
            return None
        sealed = found[0]
        try:
            plain = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], self._tenant.bytes + ref)
        except InvalidTag:
            return None
        return plain.decode()


def erase_addresses(db: Connection, refs: Iterable[bytes]) -> None:
    db.execute("DELETE FROM notice_addresses WHERE ref = ANY(%s)", (list(refs),))


def open_book(isolation: Isolation, root: RootKey, tenant: UUID) -> AddressBook:
    with isolation.transaction(tenant) as connection:
        row = connection.execute("SELECT wrapped FROM tenant_keys").fetchone()
    if row is None:
        raise LookupError("the tenant has no key: it was not onboarded here")
    return AddressBook(tenant, root.unwrap(row[0], tenant))


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, purpose, sha256)
