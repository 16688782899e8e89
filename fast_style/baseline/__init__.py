"""The optimisation baseline (Gatys et al. 2015), on training's objective."""
