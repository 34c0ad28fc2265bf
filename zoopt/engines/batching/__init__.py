"""Operations with perturbed parameters on a batch of probes."""
