"""Building blocks that model files share."""
