"""Peak memory of a conversion, in a process of its own."""

import json
import os
import subprocess
import sys

import numpy as np
from safetensors.numpy import save_file
from test_published_sizes import published_dinov2

CHILD = '''
import resource, sys
from repdiff.convert import store
def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
store.convert('dinov2', *sys.argv[1:])
print(peak() - before)
'''


def test_peak_is_below_two_and_a_half_times_the_file(tmp_path):
    source = tmp_path / 'model.safetensors'
    shapes = published_dinov2(width=768, depth=4, gated=False, registers=4).shapes
    save_file({name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()}, source)
    (tmp_path / 'config.json').write_text(json.dumps({'num_attention_heads': 12}))
    done = subprocess.run([sys.executable, '-c', CHILD, str(source), str(tmp_path / 'out')],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 2.5 * os.path.getsize(source)
