"""A browser as a board: a page served from here runs the very file and posts raw samples back."""
