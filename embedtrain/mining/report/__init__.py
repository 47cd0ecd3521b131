"""What a person should know of a selection: counts, scores, agreement, suspects and examples."""
