"""The kernel that families of directions share: θ ← decay · θ + Σ c z(s), in one pass over θ."""
