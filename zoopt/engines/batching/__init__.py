"""What perturbing a parameter means for an operation on a batch of probes."""
