"""A local server: the page, and stylizing over HTTP. Of the standard library alone."""
