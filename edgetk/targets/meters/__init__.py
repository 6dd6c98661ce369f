"""Meters: what runs an artifact on a real machine and times it, one file each."""
