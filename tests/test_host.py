import ctypes
import resource
import subprocess
import sys

from repdiff.host import keep_freed_memory

BYTES = 64 << 20
# Touches a large block anew eight times and prints the page faults, 0 where there is no glibc.
PROGRAM = f'''
import ctypes, resource
from repdiff.host import keep_freed_memory

def touch():
    block = libc.malloc({BYTES})
    ctypes.memset(block, 1, {BYTES})
    libc.free(block)

if not keep_freed_memory():
    print(0)
    raise SystemExit
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
'''


def test_freed_memory_is_used_again_without_page_faults():
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < BYTES // resource.getpagesize() // 10


def test_false_without_glibc(monkeypatch):
    monkeypatch.setattr(ctypes, 'CDLL', lambda name: object())
    assert not keep_freed_memory()
