"""`allotment fee ...`: what is charged once and taken back, and the channels that fees are owed for."""

from decimal import Decimal
from hashlib import sha256
from uuid import uuid4

import rich_click as click

from ...domain.channels import SetChannels
from ...domain.one_off import ChargeFee, UndoFee
from ...domain.rating.language import MICRO
from ...tenants.onboarding import MONEY_TEXT
from .changing import carry_out, changing
from .input import InputError


@click.group()
def fee() -> None:
    """Charge fees once, take them back, and say how many channels resources have."""


@fee.command()
@click.argument("name")
@click.argument("amount")
@click.option("--node", required=True, help="At which it stands on the invoice.")
@click.option("--period", default="", help='Such as "2026-11"; else the one that is running.')
@changing
def charge(
    name: str,
    amount: str,
    node: str,
    period: str,
    slug: str,
    note: str,
    key: str | None,
    dry: bool,
    as_json: bool,
) -> None:
    """Charge AMOUNT of the tenant's currency once, called NAME on the invoice. Needs a note: why.

    \b
    allotment fee charge "Installation" 99.00 --node sales --tenant acme --note "two trunks"
    """
    if not MONEY_TEXT.fullmatch(amount):
        raise InputError(f'{amount!r} is no amount such as "99.00": give at most six decimals')
    key = key or str(uuid4())
    ident = f"f-{sha256(key.encode()).hexdigest()[:20]}"
    command = ChargeFee(ident, name, node, int(Decimal(amount) * MICRO), period, note)
    carry_out(command, slug, key, dry=dry, as_json=as_json)


@fee.command()
@click.argument("ident")
@changing
def undo(ident: str, slug: str, note: str, key: str | None, dry: bool, as_json: bool) -> None:
    """Take the one-off fee IDENT back, as a credit in the period that runs. Needs a note: why.

    \b
    allotment fee undo f-9b74c9897bac770ffc02 --tenant acme --note "charged by mistake"
    """
    carry_out(UndoFee(ident, note), slug, key, dry=dry, as_json=as_json)


@fee.command()
@click.argument("resource")
@click.argument("channels", type=int)
@changing
def channels(
    resource: str, channels: int, slug: str, note: str, key: str | None, dry: bool, as_json: bool
) -> None:
    """Say that RESOURCE has so many CHANNELS from now on: fees per channel are owed for them.

    \b
    allotment fee channels trunk-1 30 --tenant acme
    """
    carry_out(SetChannels(resource, channels, 0, note), slug, key, dry=dry, as_json=as_json)
