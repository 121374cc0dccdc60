import base64
from pathlib import Path

import pytest

from allotment.backend.settings import SETTINGS, Settings, SettingsError, settings_document

KEY = base64.b64encode(bytes(range(32))).decode()


def test_an_empty_environment_is_development_with_embedded_servers():
    settings = Settings.from_env({"HOME": "/home/ada"})
    assert (settings.environment, settings.database_url, settings.nats_url) == ("development", None, None)
    assert (settings.host, settings.port, settings.audience) == ("127.0.0.1", 8080, "urn:allotment")
    assert (settings.issuer, settings.jwks, settings.log_level) == (None, None, "INFO")


def test_everything_given_is_taken(tmp_path):
    settings = Settings.from_env(
        {
            "DATABASE_URL": "postgresql://app@db.example/allotment",
            "NATS_URL": "nats://a.example:4222,nats://b.example:4222",
            "ALLOTMENT_ENV": "production",
            "ALLOTMENT_HOME": str(tmp_path),
            "ALLOTMENT_ROOT_KEY": KEY,
            "ALLOTMENT_ISSUER": "https://login.example",
            "ALLOTMENT_AUDIENCE": "urn:billing",
            "ALLOTMENT_JWKS": "/etc/allotment/jwks.json",
            "ALLOTMENT_HOST": "::",
            "ALLOTMENT_PORT": "0",
            "ALLOTMENT_LOG_LEVEL": "debug",
        }
    )
    assert settings.production
    assert settings.root_key() == bytes(range(32))
    assert (settings.home, settings.host, settings.port) == (tmp_path, "::", 0)
    assert (settings.issuer, settings.audience) == ("https://login.example", "urn:billing")
    assert (settings.jwks, settings.log_level) == ("/etc/allotment/jwks.json", "DEBUG")


def test_an_empty_variable_counts_as_unset():
    settings = Settings.from_env({setting.variable: " " for setting in SETTINGS} | {"HOME": "/home/ada"})
    assert settings == Settings.from_env({"HOME": "/home/ada"})


@pytest.mark.parametrize(
    ("environ", "named", "remedy"),
    [
        ({"DATABASE_URL": "mysql://x:secret@db.example/y"}, "DATABASE_URL", "postgresql://"),
        ({"DATABASE_URL": "allotment"}, "DATABASE_URL", "postgresql://"),
        ({"DATABASE_URL": "postgresql://[x/y"}, "DATABASE_URL", "postgresql://"),
        ({"NATS_URL": "localhost:4222"}, "NATS_URL", "nats://"),
        ({"ALLOTMENT_ENV": "prod"}, "ALLOTMENT_ENV", "production"),
        ({"ALLOTMENT_ENV": "production"}, "ALLOTMENT_ROOT_KEY", "openssl rand"),
        ({"ALLOTMENT_ROOT_KEY": "ä"}, "ALLOTMENT_ROOT_KEY", "32 bytes"),
        ({"ALLOTMENT_ROOT_KEY": KEY[:-4]}, "ALLOTMENT_ROOT_KEY", "32 bytes"),
        ({"ALLOTMENT_ROOT_KEY": "!" + KEY}, "ALLOTMENT_ROOT_KEY", "32 bytes"),
        ({"ALLOTMENT_JWKS": "/keys.json"}, "ALLOTMENT_JWKS", "Set ALLOTMENT_ISSUER"),
        ({"ALLOTMENT_SMTP_HOST": "m", "ALLOTMENT_SMTP_PORT": "x"}, "ALLOTMENT_SMTP_PORT", "0 to 65535"),
        ({"ALLOTMENT_SMTP_HOST": "m", "ALLOTMENT_SMTP_TLS": "ssl"}, "ALLOTMENT_SMTP_TLS", "starttls"),
        ({"ALLOTMENT_SMTP_USER": "u"}, "ALLOTMENT_SMTP_USER", "Set both"),
        ({"ALLOTMENT_SMTP_HOST": "m", "ALLOTMENT_SMTP_FROM": "me"}, "ALLOTMENT_SMTP_FROM", "bss@example"),
        ({"ALLOTMENT_WEBHOOK_PRIVATE": "yes"}, "ALLOTMENT_WEBHOOK_PRIVATE", "allowed"),
        ({"ALLOTMENT_WEBHOOK_BACKOFF": "5,x"}, "ALLOTMENT_WEBHOOK_BACKOFF", "numbers of seconds"),
        ({"ALLOTMENT_WEBHOOK_BACKOFF": "5,,6"}, "ALLOTMENT_WEBHOOK_BACKOFF", "numbers of seconds"),
        ({"ALLOTMENT_PORT": "-1"}, "ALLOTMENT_PORT", "0 to 65535"),
        ({"ALLOTMENT_PORT": "65536"}, "ALLOTMENT_PORT", "0 to 65535"),
        ({"ALLOTMENT_PORT": "²"}, "ALLOTMENT_PORT", "0 to 65535"),
        ({"ALLOTMENT_WORKERS": "0"}, "ALLOTMENT_WORKERS", "1 to 64"),
        ({"ALLOTMENT_WORKERS": "65"}, "ALLOTMENT_WORKERS", "1 to 64"),
        ({"ALLOTMENT_WORKERS": "two"}, "ALLOTMENT_WORKERS", "1 to 64"),
        ({"ALLOTMENT_LOG_LEVEL": "loud"}, "ALLOTMENT_LOG_LEVEL", "WARNING"),
    ],
)
def test_an_error_names_the_variable_and_the_remedy(environ, named, remedy):
    with pytest.raises(SettingsError) as error:
        Settings.from_env(environ)
    assert named in str(error.value)
    assert remedy in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("uid", "environ", "home"),
    [
        (0, {"XDG_DATA_HOME": "/data"}, "/var/lib/allotment"),
        (0, {"ALLOTMENT_HOME": "/srv/allotment"}, "/srv/allotment"),
        (1000, {"XDG_DATA_HOME": "/data", "HOME": "/home/ada"}, "/data/allotment"),
        (1000, {"XDG_DATA_HOME": "data", "HOME": "/home/ada"}, "/home/ada/.local/share/allotment"),
        (1000, {"HOME": "/home/ada"}, "/home/ada/.local/share/allotment"),
    ],
)
def test_the_data_folder(monkeypatch, uid, environ, home):
    monkeypatch.setattr("os.geteuid", lambda: uid)
    assert Settings.from_env(environ).home == Path(home)


def test_the_root_key_is_made_once_and_kept_for_its_owner_alone(tmp_path):
    settings = Settings.from_env({"ALLOTMENT_HOME": str(tmp_path / "new")})
    key = settings.root_key()
    assert len(key) == 32
    assert (
        key == settings.root_key() == Settings.from_env({"ALLOTMENT_HOME": str(tmp_path / "new")}).root_key()
    )
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["root.key"]
    assert (tmp_path / "new" / "root.key").stat().st_mode & 0o777 == 0o600


def test_a_damaged_root_key_is_reported_and_not_replaced(tmp_path):
    (tmp_path / "root.key").write_text("half a k")
    with pytest.raises(SettingsError, match=r"root\.key must hold 32 bytes"):
        Settings.from_env({"ALLOTMENT_HOME": str(tmp_path)}).root_key()
    assert (tmp_path / "root.key").read_text() == "half a k"


def test_production_makes_no_root_key(tmp_path):
    with pytest.raises(SettingsError, match="ALLOTMENT_ROOT_KEY"):
        Settings(home=tmp_path, environment="production").root_key()
    assert not list(tmp_path.iterdir())


def test_the_document_lists_every_setting():
    document = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    assert document == settings_document(), "run `make docs`"
