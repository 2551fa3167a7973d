"""What people say of findings: read from their tools, kept for later audits, and made one answer of several."""
