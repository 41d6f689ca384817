"""A third party's model, metric, benchmark and index for spatial-zoo."""
