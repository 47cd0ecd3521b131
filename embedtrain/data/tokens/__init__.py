"""Token ids of whole formatted strings: made on the spot, or once and kept on disk. No torch."""
