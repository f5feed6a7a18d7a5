"""How the site is: observe.py asks, reading.py makes facts of it, checks.py judges them, view.py shows them."""
