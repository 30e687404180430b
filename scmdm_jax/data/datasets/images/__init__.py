"""Labelled images: published sets from local files, and the emoji of a font."""
