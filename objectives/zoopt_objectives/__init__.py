"""The objectives that come with zoopt: an ordinary plug-in, found through its entry points.

It uses only zoopt's public names, like any third party's package; its entry points are in
``pyproject.toml`` under ``zoopt.objectives``.
"""
