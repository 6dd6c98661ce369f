"""Ground floor: the types that travel, what plug-ins promise, and the registry that finds them."""
