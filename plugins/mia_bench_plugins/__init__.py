"""The built-in plugins of mia-bench: the host finds them by entry points, as it finds anybody's."""
