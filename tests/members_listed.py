"""The members of a tree, found in one statement: what the product's own way of listing them must come to."""

from allotment.domain.hierarchy import DEPTH_MAX
from allotment.projections import members
from allotment.projections.tables import Connection


def members_under(
    db: Connection, root: str | None = None, depth: int | None = None, *, resources: bool = False
) -> list[members.Member]:
    """A root and what is below it, to a depth, in pre-order; no root means the enterprise."""
    found = db.execute(
        f"WITH RECURSIVE {members.under(root, resources=resources)} "
        f"SELECT {members._COLUMNS}, u.depth "
        f"FROM under u CROSS JOIN {members.each('members', 'ordinal = u.ordinal')} AS m ORDER BY m.path",
        {"root": root, "depth": DEPTH_MAX + 1 if depth is None else depth},
    )
    return [members._member(row[:-1], row[-1]) for row in found]
