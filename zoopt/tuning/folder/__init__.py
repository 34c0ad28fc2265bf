"""A run's folder: what is in it, whose it is, and how a run is made again from it."""
