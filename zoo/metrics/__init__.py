"""Retrieval metrics: pure functions in `functional`, one module per registered torchmetrics class."""
