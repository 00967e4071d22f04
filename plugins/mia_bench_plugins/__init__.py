"""The built-in plugins of mia-bench, found by entry points like any other plugin."""
