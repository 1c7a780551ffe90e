"""Stands in for the child process of the sanitizer and misbehaves in the way the name of the file asks for."""

import ctypes
import json
import os
import sys
import time
from pathlib import Path

from cavis.video.sanitize_child import restrict

request = json.loads(sys.stdin.buffer.read())
restrict(request["limits"])
Path("left-over.bin").write_bytes(bytes(1000))
deed = Path(request["path"]).stem
if deed == "spin":
    while True:
        pass
if deed == "sleep":
    Path(request["path"]).with_suffix(".pid").write_text(str(os.getpid()))
    time.sleep(60)
if deed == "crash":
    ctypes.string_at(0)
if deed == "fill":
    with Path("big.bin").open("wb") as file:
        while True:
            file.write(bytes(1 << 20))
if deed == "babble":
    print("not json")
if deed == "tell":
    print(json.dumps({"error": json.dumps(sorted(os.environ))}))
