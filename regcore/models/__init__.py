"""A trained model's folder, and models that were trained elsewhere."""
