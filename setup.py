from setuptools import setup  # metadata is in pyproject.toml

setup()
