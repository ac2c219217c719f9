"""Starts two processes with an emptied environment: one stays in the group, one in the directory; notes them."""
import os
import subprocess
import sys
import time

group = subprocess.Popen(["/bin/sleep", "600"], env={}, cwd="/")
place = subprocess.Popen(["/bin/sleep", "600"], env={}, start_new_session=True)
with open(sys.argv[1] + ".part", "w") as file:
    file.write("%d\n%d\n" % (group.pid, place.pid))
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
