"""`edgetk train`: train a zoo model on a task's data."""
