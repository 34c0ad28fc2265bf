"""The objectives that come with zoopt: an ordinary plug-in, found through its entry points.

It reaches zoopt by its public names alone, as any third party's package would; its entry points
are in ``pyproject.toml`` under ``zoopt.objectives``.
"""
