"""Image file formats: what Pillow, and for 16 bits imagecodecs, make of them; arrays only."""
