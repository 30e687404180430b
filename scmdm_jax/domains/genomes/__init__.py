"""Genomes: stretches of DNA and the species they are of."""
