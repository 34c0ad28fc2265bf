"""θ: which tensors are tuned, their groups, their fp32 masters, and whether they were replaced."""
