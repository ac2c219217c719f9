"""Imports something that no environment of the framework has."""

import pandas

print(pandas.__version__)
