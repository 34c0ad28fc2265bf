"""``lr="auto", eps="auto"``: the search for the perturbation scale and the learning rate."""
