"""Ways to compute the same features over the same contents: one module each, run as a process of its own."""
