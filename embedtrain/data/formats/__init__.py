"""The formats people already have, each read into canonical rows: `table.FORMATS`."""
