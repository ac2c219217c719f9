"""Writes outputs and logs, links among them that lead elsewhere."""
import os

os.makedirs("outputs/deep/er")
for name in ("outputs/model.npz", "outputs/deep/er/a.txt", "logs/own.txt"):
    with open(name, "w") as file:
        file.write("12345")
os.symlink("/etc/passwd", "outputs/passwd")
os.symlink("/etc", "outputs/etc")
os.symlink("/etc/passwd", "logs/passwd")
os.mkfifo("outputs/pipe")
print("written")
