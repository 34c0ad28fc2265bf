"""Passes other tensors than a model's parameters to its operations, without changing the model."""
