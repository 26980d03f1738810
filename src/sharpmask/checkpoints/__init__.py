"""Model files: reading, writing, converting."""

from sharpmask.checkpoints.store import DEFAULT_MODEL, load_network, save_network

__all__ = ["DEFAULT_MODEL", "load_network", "save_network"]
