"""From a torch module to files: lowering (once), emitters, and the parity proof."""
