"""A third party's model, data, metric, benchmark and index for spatial-zoo."""
