"""What servers make of an exported folder, judged from its files alone. Imports no torch."""
