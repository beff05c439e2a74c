"""Static HTML reports: what was kept, what was dropped and why, with examples. Start at ``page.write_report``."""
