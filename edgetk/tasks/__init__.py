"""Tasks: a data set with its front end, metric and streaming rules, one file each."""
