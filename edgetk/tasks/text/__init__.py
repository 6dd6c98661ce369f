"""Sentences and pairs of sentences in classes: tables, WordPiece tokens and metrics. The tasks themselves are one file each."""
