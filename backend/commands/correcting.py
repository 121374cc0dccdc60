"""`allotment correct ...`: what was told too late of nodes and resources, and what that charges to whom."""

from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import uuid4

import rich_click as click
from click.exceptions import Exit

from ...domain.correcting import (
    CorrectAdd,
    CorrectClose,
    CorrectEnd,
    Correction,
    CorrectJoin,
    CorrectMerge,
    CorrectMove,
    CorrectNodeMove,
    CorrectRename,
    CorrectResumption,
    CorrectSuspension,
)
from ...domain.difference import Difference
from ...domain.hierarchy import NODE_KINDS
from ...domain.inventory_dated import AnyCorrection
from ...domain.rating_job import RatingFinished, Scope
from ...domain.refusals import Refused
from ...graphql.wording import MERGER_LEAVES
from ...tenants.onboarding import TenantEntry, find_tenant
from ..log import PostgresLog, answer_of
from ..rerating import start_key
from ..running import Product, running
from ..stopping import complete
from .input import InputError
from .options import JSON, TENANT
from .output import note, settings_for_command, tell_json
from .rerating import ACTOR, ended, ids_of, refused, tell_difference, tell_finished, tell_progress
from .rules import moment


class ChangedSinceShown(Exception):
    """What would change is not what was confirmed."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.digest = digest


@click.group()
def correct() -> None:
    """Change the hierarchy back-dated, in a period that is open, and charge again what was used since."""


def dated(command: Callable[..., Correction]) -> Callable[..., None]:
    """The options of all of them; what it gives back is shown, or carried out."""

    @wraps(command)
    def carried_out(
        slug: str, since: str, dry: bool, as_json: bool, job: str, shown: str | None, **given: Any
    ) -> None:
        if not dry and (not job or shown is None):
            raise InputError("--job and --shown: look first with --dry-run, then confirm what was shown")
        at, name = moment(since, "--from"), job or f"preview-{uuid4()}"
        with running(settings_for_command()) as product:
            entry = find_tenant(product.isolation, slug)
            asked = command(product=product, entry=entry, job=name, at=at, shown=shown or "", **given)
            carry_out(product, entry, asked, dry=dry, as_json=as_json)

    for option in (
        JSON,
        click.option(
            "--dry-run", "dry", is_flag=True, help="Show what would be charged again; store nothing."
        ),
        click.option("--shown", help="The digest that --dry-run has told: exactly that is done."),
        click.option("--job", default="", help="The name of the job that charges again, for ever."),
        click.option("--note", "why", default="", help="Why; it stands in the log. No personal data."),
        click.option("--from", "since", required=True, metavar="DATE", help="Since when it was so."),
        TENANT,
    ):
        carried_out = option(carried_out)
    return carried_out


@correct.command()
@click.argument("node")
@click.option("--to", "parent", required=True, help="The node that it was below.")
@click.option("--name", default="", help="Else its id.")
@click.option("--kind", type=click.Choice(NODE_KINDS[1:]), required=True, help="What it is.")
@dated
def add(node: str, parent: str, name: str, kind: str, **given: Any) -> Correction:
    """Let a node be there that existed before it was told, so that others can be moved below it."""
    return CorrectAdd(given["job"], node, parent, name, kind, given["at"], given["why"], given["shown"])


@correct.command()
@click.argument("node")
@click.option("--name", required=True, help="What it was called.")
@dated
def rename(node: str, name: str, **given: Any) -> Correction:
    """Let a node have been called otherwise since then."""
    return CorrectRename(given["job"], node, name, given["at"], given["why"], given["shown"])


@correct.command()
@click.argument("member")
@click.option("--to", "target", required=True, help="The node that it stood on, or below.")
@dated
def move(product: Product, entry: TenantEntry, member: str, target: str, **given: Any) -> Correction:
    """Let a node with its subtree, or a resource, have stood elsewhere.

    \b
    allotment correct move sales --to apac --from 2026-11-10 --tenant acme --dry-run
    allotment correct move sales --to apac --from 2026-11-10 --tenant acme --job fix-1 --shown 1f0c...
    """
    with product.isolation.transaction(entry.tenant_id) as db:
        found = db.execute("SELECT is_node FROM members WHERE id = %s", (member,)).fetchone()
    kind = CorrectNodeMove if found is not None and found[0] else CorrectMove
    return kind(given["job"], member, target, given["at"], given["why"], given["shown"])


@correct.command()
@click.argument("node")
@click.option("--into", "target", required=True, help="The node that has had all that was there since.")
@dated
def merge(node: str, target: str, **given: Any) -> Correction:
    """Let a node have been merged into another: what is there, and what it holds, is the other's."""
    return CorrectMerge(given["job"], node, target, given["at"], given["why"], given["shown"])


@correct.command()
@click.argument("node")
@dated
def close(node: str, **given: Any) -> Correction:
    """Let a node have been closed, that was empty then and has been since."""
    return CorrectClose(given["job"], node, given["at"], given["why"], given["shown"])


@correct.command()
@click.argument("resource")
@dated
def join(resource: str, **given: Any) -> Correction:
    """Let a resource have been on its first node earlier.

    What waits for nobody's line, or was charged to whoever had it, is charged to this one.
    """
    return CorrectJoin(given["job"], resource, given["at"], given["why"], given["shown"])


@correct.command()
@click.argument("resource")
@dated
def end(resource: str, **given: Any) -> Correction:
    """Let a resource have ended earlier: what was used since is given back."""
    return CorrectEnd(given["job"], resource, given["at"], given["why"], given["shown"])


@correct.command()
@click.argument("resource")
@dated
def suspend(resource: str, **given: Any) -> Correction:
    """Let a resource have been suspended earlier: what was used since is given back."""
    return CorrectSuspension(given["job"], resource, given["at"], given["why"], given["shown"])


@correct.command()
@click.argument("resource")
@dated
def resume(resource: str, **given: Any) -> Correction:
    """Let a suspended resource have been resumed earlier: what was denied since is charged."""
    return CorrectResumption(given["job"], resource, given["at"], given["why"], given["shown"])


def carry_out(
    product: Product, entry: TenantEntry, asked: AnyCorrection, *, dry: bool, as_json: bool
) -> None:
    try:
        if dry:
            seq, found = complete(_shown(product, entry, asked))
            tell_difference(entry, seq, found, ids_of(product, entry), as_json=as_json)
            if not as_json:
                if isinstance(asked, CorrectMerge):
                    note(MERGER_LEAVES)
                digest = found.digest or "''"
                note(f"To confirm exactly this: --job NAME --shown {digest}")
        else:
            finished = complete(_confirmed(product, entry, asked))
            tell_finished(entry, finished, as_json=as_json)
    except ChangedSinceShown as changed:
        if as_json:
            tell_json({"refused": "changed_since_shown", "shown": asked.shown, "digest": changed.digest})
        note("allotment: this is not what was shown, so nothing was done: look at it again, with --dry-run")
        raise Exit(1) from None
    except Refused as refusal:
        if refusal.code == "lines_refused":
            raise
        raise refused(refusal, as_json=as_json) from None


async def _shown(product: Product, entry: TenantEntry, asked: AnyCorrection) -> tuple[int, Difference]:
    async with product.engine(following=False) as engine:
        return await engine.rating.preview(entry.tenant_id, Scope(), tell_progress, correction=asked)


async def _confirmed(product: Product, entry: TenantEntry, asked: AnyCorrection) -> RatingFinished:
    """What was shown, and nothing else; the same again waits until it is done."""
    async with product.engine(following=False) as engine:
        reading, key = PostgresLog(engine.isolation, entry.tenant_id), start_key(asked.job)
        if not await engine.in_thread(lambda: answer_of(reading, key)):
            _, found = await engine.rating.preview(entry.tenant_id, Scope(), correction=asked)
            if found.digest != asked.shown:
                raise ChangedSinceShown(found.digest)
        await engine.begin_rating(entry.tenant_id, asked, ACTOR)
        return await ended(engine, entry, asked.job)
