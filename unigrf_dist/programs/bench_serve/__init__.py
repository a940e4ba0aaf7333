"""``unigrf bench serve``: what a request costs, and whether a server loses or confuses any."""
