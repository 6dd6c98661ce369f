"""Boards as data, what predicts and what measures on them."""
