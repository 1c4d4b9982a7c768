"""One module per command: it reads data and weights, connects the parts, runs them and writes the results."""
