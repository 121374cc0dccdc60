"""Wording: what the schema says of fields that many inputs and payloads have."""

KEY = "Yours; sent again with the same input it changes nothing."
NOTE = "For the history. No personal data: it cannot be erased."
DRY = "Only tell what it would lead to."
WHICH_PERIOD = 'Such as "2026-11"; else what runs.'
REPEATED = "It had been done before under this key: the first answer again."
EVENTS = "The events this led to."
MERGER_LEAVES = (
    "What the successor, and who is below it, used since stays paid by whom it was paid: it was charged "
    "rightly by what there was. Where that was too little, it was paid from above; it still is."
)
"""Of a merger dated back: decision 0043."""
