"""A plugin that fails in every way a plugin can fail."""
