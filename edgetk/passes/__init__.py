"""Passes that change a model's structure, one file each."""
