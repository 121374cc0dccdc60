"""What became of usage, added up over files and told."""

from typing import Any

from ..intake.door import IntakeReport

_COUNTS = ("received", "charged", "duplicate", "suspended", "rejected", "read", "merged", "ignored")


def add_report(total: IntakeReport, report: IntakeReport) -> None:
    for name in _COUNTS:
        setattr(total, name, getattr(total, name) + getattr(report, name))
    for reason, number in report.reasons.items():
        total.reasons[reason] = total.reasons.get(reason, 0) + number
    total.problems += report.problems


def report_told(report: IntakeReport) -> dict[str, Any]:
    counts = {name: getattr(report, name) for name in _COUNTS}
    return {**counts, "reasons": report.reasons, "problems": report.problems}
