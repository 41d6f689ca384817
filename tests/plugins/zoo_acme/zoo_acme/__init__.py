"""A third party's model for spatial-zoo."""
