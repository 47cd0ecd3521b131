"""What is wrong with rows, and what they hold: counted, with examples, before a model sees them."""
