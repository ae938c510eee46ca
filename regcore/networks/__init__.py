"""Networks: pure ``nn.Module``s that map images to features or fields, without losses or data."""
