"""Eight fake CPU devices for every test, and quick compiles, set before JAX starts."""

import os
import signal

import pytest

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = ' '.join([
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count=8',
    '--xla_backend_optimization_level=0',  # tests compile more than they compute
])


@pytest.fixture
def listening():
    """Signals as `interrupt.listen` takes them, for one test."""
    from repdiff import interrupt  # after the devices are set

    before = {number: signal.getsignal(number) for number in interrupt.SIGNALS}
    interrupt.listen()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    interrupt._asked = False
