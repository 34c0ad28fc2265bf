"""What can be done with finished runs: look into them, compare, replay and merge them."""
