"""The page and the card of a run, made of what its stages left on disk.

`facts` reads it, `page` puts it together without torch, `drawing` adds what only open models can show.
"""
