"""How a model's operations get other tensors than its parameters, without the model's knowing."""
