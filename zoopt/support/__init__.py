"""General-purpose utilities."""
