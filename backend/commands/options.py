"""Options that many commands have."""

import rich_click as click

TENANT = click.option("--tenant", "-t", "slug", required=True, help="Slug or id of the tenant.")
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
