"""Ends by the signal it is given."""
import os
import sys

os.kill(os.getpid(), int(sys.argv[1]))
