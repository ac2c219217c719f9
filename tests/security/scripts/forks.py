"""Forks until it may not, then leaves a family that forks on and on. Never more than a hundred at once, and not longer than 20 seconds."""

import os
import signal
import time

until = time.monotonic() + 20
children = 0
refused = False
while children < 100:
    try:
        if os.fork() == 0:
            # Dies and has a successor, over and over: whoever looks is too late.
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            while time.monotonic() < until:
                try:
                    if os.fork():
                        os._exit(0)
                except OSError:
                    time.sleep(0.001)
            os._exit(0)
    except OSError:
        refused = True
        break
    children += 1
print(os.getuid(), children, refused, flush=True)
