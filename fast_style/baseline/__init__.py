"""The optimisation baseline (Gatys et al. 2016), on training's objective."""
