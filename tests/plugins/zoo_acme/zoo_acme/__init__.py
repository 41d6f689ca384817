"""A third party's model, metric and benchmark for spatial-zoo."""
