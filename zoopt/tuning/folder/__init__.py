"""A run's folder: its files, the identity of the run, and how it is resumed."""
