"""The base classes a plugin author subclasses, one file each. Importing them imports no torch."""
