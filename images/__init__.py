"""Recipes of the rescue image, of the operating systems to install, and of the restic program."""
