"""Which heads of a model do what: probes, scores with their confidence, and the head map that comes of them."""
