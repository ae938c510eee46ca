"""Networks: pure ``nn.Module``s that map images to features or fields and know of no loss and no data."""
