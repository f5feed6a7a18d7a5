"""The archive of every LiteFS transaction. Standard library only, and relative imports only: it is packed as a zipapp, too."""
