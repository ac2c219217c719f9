"""Removes its whole attempt and lives on; notes itself in the given file."""
import os
import shutil
import sys
import time

# Started is what is noted: before, removing would only keep it from starting.
while not os.path.exists("../started.json"):
    time.sleep(0.01)
time.sleep(0.2)
shutil.rmtree(os.path.dirname(os.getcwd()))
with open(sys.argv[1] + ".part", "w") as file:
    file.write("%d\n" % os.getpid())
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
