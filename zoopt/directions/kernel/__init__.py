"""The kernel shared by all direction families: θ ← decay · θ + Σ c z(s), in one pass over θ."""
