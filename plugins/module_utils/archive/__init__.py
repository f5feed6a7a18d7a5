"""Every LiteFS transaction kept. Standard library and relative imports only: it is packed as a zipapp, too."""
