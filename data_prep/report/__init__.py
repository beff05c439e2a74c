"""Static HTML reports: what was kept, what was dropped and why, and examples to read."""

from data_prep.report.page import Example, Histogram, Notice, write_report

__all__ = ["Example", "Histogram", "Notice", "write_report"]
