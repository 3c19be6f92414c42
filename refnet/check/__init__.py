"""What judges: bounds that follow from formats, verdicts, and causes found by replay."""

from refnet.check.report import Report, Verdict

__all__ = ["Report", "Verdict"]
