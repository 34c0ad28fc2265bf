"""The context of an evaluation of the objective: modes, buffers, random state, population."""
