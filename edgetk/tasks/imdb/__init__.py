"""IMDb reviews: where they are, as bytes, and as windows of a text for models of what comes next."""
