"""What a run may run into: divergence, too little memory, standstill, an end from outside."""
