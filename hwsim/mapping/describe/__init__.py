"""Mapping documents: a decision with its counts as plain data, what binds it, and what more of each part would buy."""
