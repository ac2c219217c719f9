"""Does not parse: the bracket is never closed."""

print("epoch", 1
