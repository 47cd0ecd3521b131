"""Loads a backbone and makes it an encoder; the only room that knows the insides of transformers and peft."""
