"""A stock of write-ahead log: what a server that has been at work has, and one that just began has not.

PostgreSQL writes each new segment full of zeros before it is used, some 20,000 records apart, while
all who commit wait: 50 to 100 ms here. After a checkpoint old segments are used again, so a server at
work hardly ever does that. Everybody who is measured has the stock: contenders and baselines alike.
"""

import psycopg

RECORD_BYTES = 1_000
"""What a record takes of it, about."""
STOCK_BYTES_MAX = 3 << 30
"""As much as the embedded server comes to keep: it has a checkpoint each 2 GB (`max_wal_size`)."""
_PIECE_BYTES = 8 << 20


def stock(database_url: str, records: int) -> None:
    """Write as much log as so many records will, and have it used again."""
    pieces = min(records * RECORD_BYTES, STOCK_BYTES_MAX) // _PIECE_BYTES
    with psycopg.connect(database_url, autocommit=True) as connection:
        for _ in range(pieces):
            connection.execute(
                "SELECT pg_logical_emit_message(false, 'stock', repeat('x', %s))", (_PIECE_BYTES,)
            )
        connection.execute("CHECKPOINT")
