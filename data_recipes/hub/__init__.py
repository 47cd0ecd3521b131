"""Published training sets of the Hugging Face hub, one module a set: a card, and its records as rows."""
