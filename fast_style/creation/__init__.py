"""From a picture to a model, in one command."""
