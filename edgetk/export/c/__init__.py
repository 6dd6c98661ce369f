"""From a static graph to C: what is computed when (plan), where it lies (arena), and its text (emit)."""
