"""Network base classes that plugins build on (importing the submodules imports torch)."""
