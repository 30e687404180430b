"""What a run is about: a folder for each kind of data, behind one record."""
