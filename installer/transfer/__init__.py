"""Moving memories in and out of a store, and taking a store away."""
