"""The report as a page that takes verdicts: served to this machine alone, kept in the audit at once."""
