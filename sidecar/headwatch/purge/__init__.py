"""Removing what is kept of a user, a tenant or a document, or of everything before a day: everywhere, proven by a count."""
