"""Ways to start an adapter."""
