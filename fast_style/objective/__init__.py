"""The objective: losses, their balance, the loss network's weights, and the one builder."""
