"""edgetk: small models for constrained boards, compressed, exported, proven equal and reported with honest figures."""

__version__ = "0.1.0"
