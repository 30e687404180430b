"""Labelled images: published sets from local files."""
