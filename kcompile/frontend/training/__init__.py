"""Training: losses, metrics, optimizers, the step as one graph, and the loop around it."""
