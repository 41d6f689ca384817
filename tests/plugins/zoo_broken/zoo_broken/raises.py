"""Raises when it is imported."""

raise RuntimeError("the licence server of Acme does not answer")
