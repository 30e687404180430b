"""Documents of prose: published sets from local files, and one's own."""
