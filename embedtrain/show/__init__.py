"""What a person sees: progress, tables, plots and pages. Imports no torch."""
