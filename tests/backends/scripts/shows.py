"""Writes down what it was given."""
import json
import os
import sys

seen = {"argv": sys.argv[1:], "environment": dict(os.environ), "directory": os.getcwd(), "stdin": sys.stdin.read()}
with open("outputs/seen.json", "w") as file:
    json.dump(seen, file)
