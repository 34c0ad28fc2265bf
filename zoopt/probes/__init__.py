"""What one evaluation of the objective sees: modes, buffers, random state, population, closure."""
