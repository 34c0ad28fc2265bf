"""``lr="auto", eps="auto"``: which perturbation scale, and which learning rate."""
