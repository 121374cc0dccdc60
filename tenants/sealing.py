"""Sealed personal fields: numbers, names and called parties, under a key for each subject.

A subject is whoever stands behind one line; it is known by a token, a keyed hash of the line,
which guides usage without telling the number. Deleting a subject's key erases the person:
amounts, proofs and replay do not change, because nothing that is charged depends on what is
sealed. Keys are wrapped by the tenant's key, and that by the root key, which never enters the
database.
"""

import hmac
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b, sha256
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .isolation import Connection, Isolation

KEY_BYTES = 32
NONCE_BYTES = 12
TOKEN_BYTES = 16
DIGEST_BYTES = 8
CIPHERS_MAX = 100_000


class RootKey:
    """Wraps the tenants' keys. In production it comes from the operator's key store."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"the root key has {len(key)} bytes, it needs {KEY_BYTES}")
        self._cipher = AESGCM(key)

    def wrap(self, key: bytes, tenant: UUID) -> bytes:
        return _encrypt(self._cipher, key, tenant.bytes)

    def unwrap(self, wrapped: bytes, tenant: UUID) -> bytes:
        try:
            return _decrypt(self._cipher, wrapped, tenant.bytes)
        except InvalidTag:
            raise WrongRootKey(
                "the root key does not open this tenant's key: "
                "set ALLOTMENT_ROOT_KEY to the one it was made with"
            ) from None


class WrongRootKey(ValueError):
    """The root key is not the one the tenant's key was wrapped with."""


class Sealer:
    """Seals and opens for one tenant. New subjects' keys are stored by the writer with its group."""

    def __init__(self, tenant: UUID, tenant_key: bytes, wrapped: dict[bytes, bytes] | None = None) -> None:
        self.tenant = tenant
        self._tenant_bytes = tenant.bytes
        self._tenant_key = tenant_key
        self._wrapping = AESGCM(tenant_key)
        self._token_key = hmac.digest(tenant_key, b"allotment.token.1", sha256)
        digest_key = hmac.digest(tenant_key, b"allotment.digest.1", sha256)
        self._keyed = blake2b(digest_size=DIGEST_BYTES, key=digest_key)
        self._wrapped = wrapped if wrapped is not None else {}
        self._ciphers: dict[bytes, AESGCM] = {}
        self._tokens: dict[str, bytes] = {}
        self.unsaved: dict[bytes, bytes] = {}

    def token(self, line: str) -> bytes:
        """The keyed hash by which a line is looked up."""
        token = self._tokens.get(line)
        if token is None:
            token = hmac.digest(self._token_key, line.encode(), sha256)[:TOKEN_BYTES]
            if len(self._tokens) >= CIPHERS_MAX:
                self._tokens.clear()
            self._tokens[line] = token
        return token

    def digest(self, content: bytes) -> bytes:
        """Tells equal contents from different ones, to whoever has the tenant's key.

        Without the key nobody can try which number would have given it, when all else is known.
        """
        keyed = self._keyed.copy()
        keyed.update(content)
        return keyed.digest()

    @property
    def parts(self) -> tuple[Any, ...]:
        """What `digest`, `token` and `seal_lines` work with: for native code, which does the same."""
        keys = self._token_key, self._tenant_key, self._wrapped
        return self._keyed, self._tenant_bytes, self.token, self._key_for, *keys

    def nonces(self, count: int) -> bytes:
        """So many of them, one after the other."""
        return os.urandom(NONCE_BYTES * count)

    def seal_lines(
        self, lines: Sequence[str], plains: Sequence[bytes], contexts: Sequence[bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        """The token of each line, and what was sealed under its key: as `token` and `seal`, for many."""
        known, ciphers, tenant = self._tokens, self._ciphers, self._tenant_bytes
        tokens = [known.get(line) or self.token(line) for line in lines]
        under = [ciphers.get(token) or self._cipher_for(token) for token in tokens]
        random = self.nonces(len(lines))
        nonces = [random[at : at + NONCE_BYTES] for at in range(0, len(random), NONCE_BYTES)]
        sealed = [
            nonce + cipher.encrypt(nonce, plain, tenant + context)
            for cipher, nonce, plain, context in zip(under, nonces, plains, contexts, strict=True)
        ]
        return tokens, sealed

    def seal(self, subject: bytes, plain: bytes, context: bytes) -> bytes:
        """Under the subject's key, bound to tenant and context, so that it opens nowhere else."""
        return _encrypt(self._cipher_for(subject), plain, self._tenant_bytes + context)

    def _cipher_for(self, subject: bytes) -> AESGCM:
        cipher = self._ciphers.get(subject) or self._cipher(subject, create=True)
        assert cipher is not None
        return cipher

    def open(self, subject: bytes, sealed: bytes, context: bytes) -> bytes | None:
        """What was sealed; None when the person was erased."""
        cipher = self._ciphers.get(subject) or self._cipher(subject, create=False)
        if cipher is None:
            return None
        try:
            return _decrypt(cipher, sealed, self._tenant_bytes + context)
        except InvalidTag:
            # The subject was erased, and came back later under a new key.
            return None

    def _cipher(self, subject: bytes, *, create: bool) -> AESGCM | None:
        if not create and subject not in self._wrapped:
            return None
        key = self._key_for(subject)
        if len(self._ciphers) >= CIPHERS_MAX:
            self._ciphers.clear()
        cipher = self._ciphers[subject] = AESGCM(key)
        return cipher

    def _key_for(self, subject: bytes) -> bytes:
        """The subject's key, which is made where there is none."""
        wrapped = self._wrapped.get(subject)
        if wrapped is not None:
            return _decrypt(self._wrapping, wrapped, self._tenant_bytes + subject)
        key = os.urandom(KEY_BYTES)
        wrapped = _encrypt(self._wrapping, key, self._tenant_bytes + subject)
        self._wrapped[subject] = self.unsaved[subject] = wrapped
        return key

    @contextmanager
    def for_nothing(self) -> Iterator[None]:
        """What is sealed while this lasts is thrown away: keys made for it are not kept."""
        before = set(self.unsaved)
        try:
            yield
        finally:
            for subject in self.unsaved.keys() - before:
                del self.unsaved[subject], self._wrapped[subject]
                self._ciphers.pop(subject, None)

    def take_unsaved(self) -> dict[bytes, bytes]:
        """The keys made since the last call: they must be stored before what they seal."""
        taken, self.unsaved = self.unsaved, {}
        return taken


def create_tenant_key(connection: Connection, root: RootKey, tenant: UUID) -> None:
    connection.execute(
        "INSERT INTO tenant_keys (tenant_id, wrapped) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (tenant, root.wrap(os.urandom(KEY_BYTES), tenant)),
    )


def load_sealer(isolation: Isolation, root: RootKey, tenant: UUID) -> Sealer:
    """A sealer with every key of the tenant that is stored now."""
    with isolation.transaction(tenant) as connection:
        row = connection.execute("SELECT wrapped FROM tenant_keys").fetchone()
        if row is None:
            raise LookupError("the tenant has no key: it was not onboarded here")
        subjects = connection.execute("SELECT subject, wrapped FROM subject_keys").fetchall()
    return Sealer(tenant, root.unwrap(row[0], tenant), dict(subjects))


def erase(isolation: Isolation, tenant: UUID, subjects: Iterable[bytes]) -> int:
    """Delete the keys of subjects: what was sealed for them can never be read again.

    The tenant's running writer loses its epoch with it: it reads its keys again, and seals nothing
    with one that is gone.
    """
    with isolation.transaction(tenant) as connection:
        connection.execute("UPDATE log_heads SET epoch = epoch + 1")
        deleted = connection.execute("DELETE FROM subject_keys WHERE subject = ANY(%s)", (list(subjects),))
        return deleted.rowcount


def _encrypt(cipher: AESGCM, plain: bytes, context: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, context)


def _decrypt(cipher: AESGCM, sealed: bytes, context: bytes) -> bytes:
    return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)
