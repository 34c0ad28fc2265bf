"""θ: which tensors are tuned, their groups, their fp32 masters, and whether it is still θ."""
