"""Ends with the exit code it is given, after a line on each stream."""
import sys

print("out")
print("err", file=sys.stderr)
sys.exit(int(sys.argv[1]))
