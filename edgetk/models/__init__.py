"""Models: one file per family; `layers/` holds the blocks they share, `weights/` the trained ones with their cards."""
