"""What a run is, and by key what is wrong with one that is not."""
