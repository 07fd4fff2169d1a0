"""A run's report: one self-contained HTML page."""

from patchmill.training.report.page import write

__all__ = ["write"]
