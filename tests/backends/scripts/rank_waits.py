"""Every rank notes its process and waits for ever."""
import os
import sys
import time

from mpi4py import MPI

MPI.COMM_WORLD.Barrier()
with open("%s.%d" % (sys.argv[1], MPI.COMM_WORLD.Get_rank()), "w") as file:
    file.write("%d\n" % os.getpid())
while True:
    time.sleep(600)
