"""One evaluator for every method: what is measured, and how a field and a pair become rows."""
