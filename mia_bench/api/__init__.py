"""The base classes that plugin authors subclass, one file each; importing them does not import torch."""
