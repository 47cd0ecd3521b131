"""What each technique of a run is worth: variants by seeds, paired differences, and verdicts."""
