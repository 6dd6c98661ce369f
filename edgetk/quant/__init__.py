"""Passes that change the number format, one file each."""
