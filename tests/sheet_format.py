"""A format of our own for calls in a table, of which a test says what else is wanted."""

SHEET = """
kind = "csv"
source = "pbx"
[csv]
{csv}
[fields]
id = "Id"
usage_type = {{ constant = "voice" }}
line = "From"
counterpart = "To"
[times]
at = {{ start = "Began" }}
started_at = ["start"]
format = "iso8601"
[quantity]
at = "{seconds}"
"""
