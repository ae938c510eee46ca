"""What training and instance optimisation minimise: pure functions of tensors, each with its equation."""
