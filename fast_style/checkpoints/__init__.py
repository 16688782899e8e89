"""The model file and the training state; other projects' files."""
