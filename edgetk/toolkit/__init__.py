"""Top floor: from a recipe to a report, and the command line."""
