"""Settings: everything the environment may say, read once, checked at once.

A setting that cannot be read is an error that names the variable and the remedy; nothing is
guessed. `SETTINGS` is the one list of them: `docs/settings.md` is printed from it.
"""

import base64
import binascii
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

ROOT_KEY_BYTES = 32
ENVIRONMENTS = ("development", "production")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
PORT_MAX = 65_535
WORKERS_MAX = 64
TLS = ("starttls", "tls", "none")
PRIVATE = ("refused", "allowed")
BACKOFF_SECONDS = (5, 30, 300, 1_800, 7_200, 21_600, 43_200, 86_400)
BACKOFF_STEPS_MAX, BACKOFF_SECONDS_MAX = 20, 7 * 86_400


class SettingsError(Exception):
    """A setting is missing or cannot be used. The message names it and says what to do."""


class Setting(Struct, frozen=True):
    """One variable of the environment, for people."""

    variable: str
    default: str
    meaning: str


SETTINGS = (
    Setting(
        "DATABASE_URL",
        "embedded PostgreSQL",
        "PostgreSQL 16 or later, `postgresql://user:password@host:5432/allotment`. Required in production. "
        "Limits of the network that it names (`connect_timeout`, `keepalives_idle`, `keepalives_interval`, "
        "`keepalives_count`, `tcp_user_timeout`) count more than ours (5 s, 5 s, 2 s, 3, 10 s).",
    ),
    Setting(
        "NATS_URL",
        "embedded NATS",
        "NATS with JetStream, `nats://host:4222`. Required in production.",
    ),
    Setting(
        "ALLOTMENT_ENV",
        "`development`",
        "`development` or `production`. Production starts no servers and makes no keys of its own.",
    ),
    Setting(
        "ALLOTMENT_HOME",
        "`/var/lib/allotment` for root, else `$XDG_DATA_HOME/allotment` or `~/.local/share/allotment`",
        "Folder for the data of the embedded servers and for the root key.",
    ),
    Setting(
        "ALLOTMENT_ROOT_KEY",
        "made once and kept in `root.key` in the data folder",
        "32 bytes in base64 that seal the keys of personal data: never lose them. Required in production.",
    ),
    Setting(
        "ALLOTMENT_ISSUER",
        "the built-in development issuer",
        "Who signs the tokens we accept: the `iss` they carry.",
    ),
    Setting(
        "ALLOTMENT_AUDIENCE", "`urn:allotment`", "Whom the tokens we accept are for: the `aud` they carry."
    ),
    Setting(
        "ALLOTMENT_JWKS",
        "the keys of the built-in development issuer",
        "The issuer's public keys: the path of a JWKS file, or its address. Needs `ALLOTMENT_ISSUER`.",
    ),
    Setting("ALLOTMENT_HOST", "`127.0.0.1`", "Where the API listens."),
    Setting("ALLOTMENT_PORT", "`8080`", "The port it listens on; 0 takes any free one."),
    Setting(
        "ALLOTMENT_WORKERS",
        "`1`",
        "Processes that serve, sharing the port and the tenants: 1 to 64, at most one per core.",
    ),
    Setting(
        "ALLOTMENT_SMTP_HOST",
        "no e-mail is sent, what is to be sent waits",
        "The mail server that takes notices to people, by name or address.",
    ),
    Setting("ALLOTMENT_SMTP_PORT", "`587`, or `465` with `tls`", "Its port."),
    Setting(
        "ALLOTMENT_SMTP_TLS",
        "`starttls`",
        "`starttls`, `tls` from the first byte, or `none`, which is for a server on this machine.",
    ),
    Setting("ALLOTMENT_SMTP_USER", "no login", "Who we are there. Needs `ALLOTMENT_SMTP_PASSWORD`."),
    Setting("ALLOTMENT_SMTP_PASSWORD", "no login", "The password that goes with it."),
    Setting("ALLOTMENT_SMTP_FROM", "`allotment@` and the name of the mail server", "Whom notices come from."),
    Setting(
        "ALLOTMENT_WEBHOOK_PRIVATE",
        "`refused`",
        "`allowed` lets webhooks reach private addresses, and plain HTTP: for closed networks.",
    ),
    Setting(
        "ALLOTMENT_WEBHOOK_BACKOFF",
        "`5,30,300,1800,7200,21600,43200,86400`",
        "Seconds until a webhook that failed is tried again, time after time; after the last it is disabled.",
    ),
    Setting("ALLOTMENT_LOG_LEVEL", "`INFO`", "`DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`."),
)


class MailServer(Struct, frozen=True):
    """Who takes our e-mail."""

    host: str
    port: int
    tls: str
    sender: str
    user: str = ""
    password: str = ""


class Settings(Struct, frozen=True, kw_only=True):
    """What the environment said. `None` stands for "use the built-in one"."""

    database_url: str | None = None
    nats_url: str | None = None
    environment: str = "development"
    home: Path
    given_root_key: bytes | None = None
    issuer: str | None = None
    audience: str = "urn:allotment"
    jwks: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    log_level: str = "INFO"
    smtp: "MailServer | None" = None
    private_webhooks: bool = False
    backoff_seconds: tuple[int, ...] = BACKOFF_SECONDS

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        # An empty variable is how compose files and shells say "unset".
        given = {name: value.strip() for name, value in environ.items() if value.strip()}
        settings = cls(
            database_url=_url(given, "DATABASE_URL", ("postgresql", "postgres")),
            nats_url=_url(given, "NATS_URL", ("nats", "tls")),
            environment=_one_of("ALLOTMENT_ENV", given.get("ALLOTMENT_ENV", "development"), ENVIRONMENTS),
            home=_home(given),
            given_root_key=_root_key(given),
            issuer=given.get("ALLOTMENT_ISSUER"),
            audience=given.get("ALLOTMENT_AUDIENCE", "urn:allotment"),
            jwks=given.get("ALLOTMENT_JWKS"),
            host=given.get("ALLOTMENT_HOST", "127.0.0.1"),
            port=_port(given),
            workers=_workers(given),
            log_level=_one_of(
                "ALLOTMENT_LOG_LEVEL", given.get("ALLOTMENT_LOG_LEVEL", "INFO").upper(), LOG_LEVELS
            ),
            smtp=_mail_server(given),
            private_webhooks=_one_of(
                "ALLOTMENT_WEBHOOK_PRIVATE", given.get("ALLOTMENT_WEBHOOK_PRIVATE", "refused"), PRIVATE
            )
            == "allowed",
            backoff_seconds=_backoff(given),
        )
        _check_together(settings)
        return settings

    @property
    def production(self) -> bool:
        return self.environment == "production"

    def root_key(self) -> bytes:
        """The key that seals all others. In development it is made at first use and kept."""
        if self.given_root_key is not None:
            return self.given_root_key
        if self.production:
            raise SettingsError(_ROOT_KEY_MISSING)
        return _kept_root_key(self.home / "root.key")


_ROOT_KEY_MISSING = (
    "ALLOTMENT_ROOT_KEY is not set, and production makes no key of its own."
    " Set it to 32 random bytes in base64 (`openssl rand -base64 32`) and keep a copy in a safe place."
)


def settings_document() -> str:
    """`docs/settings.md`."""
    rows = [f"| `{s.variable}` | {s.default} | {s.meaning} |" for s in SETTINGS]
    return "\n".join(
        [
            "# Settings",
            "",
            "Allotment reads these variables of the environment, and nothing else.",
            "An empty variable counts as unset.",
            "",
            "| variable | when unset | meaning |",
            "|---|---|---|",
            *rows,
            "",
            "This page is printed from `backend/settings.py`; `make docs` renews it.",
            "",
        ]
    )


def _check_together(settings: Settings) -> None:
    if settings.production and settings.given_root_key is None:
        raise SettingsError(_ROOT_KEY_MISSING)
    if settings.jwks and not settings.issuer:
        raise SettingsError(
            "ALLOTMENT_JWKS is set but ALLOTMENT_ISSUER is not: keys without the name of their owner"
            " would accept anybody's tokens. Set ALLOTMENT_ISSUER to the `iss` of your tokens."
        )


def _url(given: Mapping[str, str], variable: str, schemes: tuple[str, ...]) -> str | None:
    url = given.get(variable)
    if url is None:
        return None
    # A URL may hold a password: the message does not repeat it.
    if _scheme(url) not in schemes:
        raise SettingsError(
            f"{variable} is no address we can use."
            f" It must begin with {' or '.join(scheme + '://' for scheme in schemes)}."
        )
    return url


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme if "://" in url else ""
    except ValueError:
        return ""


def _one_of(variable: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise SettingsError(f"{variable} is {value!r}. Set it to one of: {', '.join(allowed)}.")
    return value


def _port(given: Mapping[str, str], variable: str = "ALLOTMENT_PORT", usual: str = "8080") -> int:
    text = given.get(variable, usual)
    if not (text.isascii() and text.isdigit() and int(text) <= PORT_MAX):
        raise SettingsError(f"{variable} is {text!r}. Set it to a port number, 0 to {PORT_MAX}.")
    return int(text)


def _mail_server(given: Mapping[str, str]) -> MailServer | None:
    host = given.get("ALLOTMENT_SMTP_HOST")
    tls = _one_of("ALLOTMENT_SMTP_TLS", given.get("ALLOTMENT_SMTP_TLS", "starttls"), TLS)
    port = _port(given, "ALLOTMENT_SMTP_PORT", "465" if tls == "tls" else "587")
    user, password = given.get("ALLOTMENT_SMTP_USER", ""), given.get("ALLOTMENT_SMTP_PASSWORD", "")
    if bool(user) != bool(password):
        raise SettingsError(
            "ALLOTMENT_SMTP_USER and ALLOTMENT_SMTP_PASSWORD go together. Set both, or neither."
        )
    if host is None:
        return None
    sender = given.get("ALLOTMENT_SMTP_FROM", f"allotment@{host}")
    if "@" not in sender or not sender.isprintable() or " " in sender:
        raise SettingsError(
            "ALLOTMENT_SMTP_FROM is no e-mail address. Set it to one such as bss@example.com."
        )
    return MailServer(host, port, tls, sender, user, password)


def _backoff(given: Mapping[str, str]) -> tuple[int, ...]:
    text = given.get("ALLOTMENT_WEBHOOK_BACKOFF")
    if text is None:
        return BACKOFF_SECONDS
    steps = [step.strip() for step in text.split(",")]
    fits = all(step.isascii() and step.isdigit() and int(step) <= BACKOFF_SECONDS_MAX for step in steps)
    if not fits or len(steps) > BACKOFF_STEPS_MAX:
        raise SettingsError(
            f"ALLOTMENT_WEBHOOK_BACKOFF is {text!r}. Set it to at most {BACKOFF_STEPS_MAX} numbers of seconds"
            ' such as "5,60,3600".'
        )
    return tuple(map(int, steps))


def _workers(given: Mapping[str, str]) -> int:
    text = given.get("ALLOTMENT_WORKERS", "1")
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= WORKERS_MAX):
        raise SettingsError(f"ALLOTMENT_WORKERS is {text!r}. Set it to a number from 1 to {WORKERS_MAX}.")
    return int(text)


def _home(given: Mapping[str, str]) -> Path:
    if "ALLOTMENT_HOME" in given:
        return Path(given["ALLOTMENT_HOME"]).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/allotment")
    # The base directory specification: a relative XDG_DATA_HOME is to be ignored.
    shared = Path(given.get("XDG_DATA_HOME", ""))
    if shared.is_absolute():
        return shared / "allotment"
    return Path(given.get("HOME") or Path.home()).absolute() / ".local" / "share" / "allotment"


def _root_key(given: Mapping[str, str]) -> bytes | None:
    text = given.get("ALLOTMENT_ROOT_KEY")
    return None if text is None else _decoded_key(text, "ALLOTMENT_ROOT_KEY")


def _decoded_key(text: str, origin: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != ROOT_KEY_BYTES:
        raise SettingsError(
            f"{origin} must hold {ROOT_KEY_BYTES} bytes in base64."
            f" Make them with `openssl rand -base64 {ROOT_KEY_BYTES}`."
        )
    return key


def _kept_root_key(path: Path) -> bytes:
    if not path.exists():
        _keep(path, base64.b64encode(secrets.token_bytes(ROOT_KEY_BYTES)))
    return _decoded_key(path.read_text(encoding="ascii", errors="replace").strip(), str(path))


def _keep(path: Path, content: bytes) -> None:
    """Write it whole or not at all; whoever was first wins, and both then read the same key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content + b"\n")
            file.flush()
            os.fsync(file.fileno())
        _link(draft, path)
    finally:
        draft.unlink()


def _link(draft: Path, path: Path) -> None:
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return
