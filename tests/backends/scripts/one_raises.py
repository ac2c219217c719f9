"""Rank 1 raises while the others wait for it."""
import sys

from mpi4py import MPI

rank = MPI.COMM_WORLD.Get_rank()
print("rank", rank, "of", MPI.COMM_WORLD.Get_size(), "with", sys.argv[1:], flush=True)
if rank == 1:
    raise ValueError("rank 1 gives up")
MPI.COMM_WORLD.Barrier()
