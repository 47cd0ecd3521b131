"""The shell: each file reads folders, calls the rooms below and writes one folder.

Stages never import each other; they meet on disk.
"""
