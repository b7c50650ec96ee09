"""FID's Inception v3 in plain PyTorch functions, and weights that anyone can draw again.

Written from the description of the network, not from the Flax module: torchvision's blocks with
the three changes that pytorch-fid documents.
"""

import zlib

import numpy as np

CLASSES = 1008


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A random tensor fixed by its published name and shape, scaled to keep signals alive."""
    # RandomState's stream is frozen in NumPy, so that goldens hold on every version.
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith('running_var'):
        value = random.uniform(0.5, 1.5, shape)
    elif name.endswith('bn.weight'):
        value = 1 + 0.2 * random.standard_normal(shape)
    elif len(shape) == 1:
        value = 0.2 * random.standard_normal(shape)
    else:
        value = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    return value.astype(np.float32)


def images(seed: int, *shape: int) -> np.ndarray:
    """Smooth uint8 images (B, H, W, C)."""
    random = np.random.RandomState(seed)
    coarse = random.uniform(0, 255, (shape[0], 5, 5, shape[3]))
    rows, columns = (np.arange(size) * 5 // size for size in shape[1:3])
    return coarse[:, rows][:, :, columns].astype(np.uint8)


class Reference:
    """Runs the network and notes the weights it asked for in `state`."""

    def __init__(self):
        self.state: dict[str, np.ndarray] = {}

    def tensor(self, name, *shape):
        import torch
        self.state[name] = weight(name, shape)
        return torch.from_numpy(self.state[name])

    def conv(self, x, name, out, kernel=1, stride=1, padding=0):
        import torch.nn.functional as F
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        x = F.conv2d(x, self.tensor(f'{name}.conv.weight', out, x.shape[1], *kernel),
                     stride=stride, padding=padding)
        scale, bias, mean, var = (self.tensor(f'{name}.bn.{part}', out) for part in (
            'weight', 'bias', 'running_mean', 'running_var'))
        return F.relu(F.batch_norm(x, mean, var, scale, bias, training=False, eps=0.001))

    def average(self, x):
        import torch.nn.functional as F
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)

    def a(self, x, name, pool):
        import torch
        one = self.conv(x, f'{name}.branch1x1', 64)
        five = self.conv(x, f'{name}.branch5x5_1', 48)
        five = self.conv(five, f'{name}.branch5x5_2', 64, 5, padding=2)
        three = self.conv(x, f'{name}.branch3x3dbl_1', 64)
        three = self.conv(three, f'{name}.branch3x3dbl_2', 96, 3, padding=1)
        three = self.conv(three, f'{name}.branch3x3dbl_3', 96, 3, padding=1)
        pooled = self.conv(self.average(x), f'{name}.branch_pool', pool)
        return torch.cat([one, five, three, pooled], 1)

    def b(self, x, name):
        import torch
        import torch.nn.functional as F
        three = self.conv(x, f'{name}.branch3x3', 384, 3, stride=2)
        double = self.conv(x, f'{name}.branch3x3dbl_1', 64)
        double = self.conv(double, f'{name}.branch3x3dbl_2', 96, 3, padding=1)
        double = self.conv(double, f'{name}.branch3x3dbl_3', 96, 3, stride=2)
        return torch.cat([three, double, F.max_pool2d(x, 3, stride=2)], 1)

    def c(self, x, name, width):
        import torch
        row, column = dict(kernel=(1, 7), padding=(0, 3)), dict(kernel=(7, 1), padding=(3, 0))
        one = self.conv(x, f'{name}.branch1x1', 192)
        seven = self.conv(x, f'{name}.branch7x7_1', width)
        seven = self.conv(seven, f'{name}.branch7x7_2', width, **row)
        seven = self.conv(seven, f'{name}.branch7x7_3', 192, **column)
        double = self.conv(x, f'{name}.branch7x7dbl_1', width)
        double = self.conv(double, f'{name}.branch7x7dbl_2', width, **column)
        double = self.conv(double, f'{name}.branch7x7dbl_3', width, **row)
        double = self.conv(double, f'{name}.branch7x7dbl_4', width, **column)
        double = self.conv(double, f'{name}.branch7x7dbl_5', 192, **row)
        pooled = self.conv(self.average(x), f'{name}.branch_pool', 192)
        return torch.cat([one, seven, double, pooled], 1)

    def d(self, x, name):
        import torch
        import torch.nn.functional as F
        three = self.conv(x, f'{name}.branch3x3_1', 192)
        three = self.conv(three, f'{name}.branch3x3_2', 320, 3, stride=2)
        seven = self.conv(x, f'{name}.branch7x7x3_1', 192)
        seven = self.conv(seven, f'{name}.branch7x7x3_2', 192, (1, 7), padding=(0, 3))
        seven = self.conv(seven, f'{name}.branch7x7x3_3', 192, (7, 1), padding=(3, 0))
        seven = self.conv(seven, f'{name}.branch7x7x3_4', 192, 3, stride=2)
        return torch.cat([three, seven, F.max_pool2d(x, 3, stride=2)], 1)

    def e(self, x, name, pool):
        import torch
        row, column = dict(kernel=(1, 3), padding=(0, 1)), dict(kernel=(3, 1), padding=(1, 0))
        one = self.conv(x, f'{name}.branch1x1', 320)
        three = self.conv(x, f'{name}.branch3x3_1', 384)
        three = [self.conv(three, f'{name}.branch3x3_2a', 384, **row),
                 self.conv(three, f'{name}.branch3x3_2b', 384, **column)]
        double = self.conv(x, f'{name}.branch3x3dbl_1', 448)
        double = self.conv(double, f'{name}.branch3x3dbl_2', 384, 3, padding=1)
        double = [self.conv(double, f'{name}.branch3x3dbl_3a', 384, **row),
                  self.conv(double, f'{name}.branch3x3dbl_3b', 384, **column)]
        pooled = self.conv(pool(x), f'{name}.branch_pool', 192)
        return torch.cat([one, *three, *double, pooled], 1)

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 (B, H, W, 1 or 3) -> pool (B, 2048), spatial (B, 2023), logits (B, 1008)."""
        import torch
        import torch.nn.functional as F
        x = torch.from_numpy(np.broadcast_to(pixels, (*pixels.shape[:3], 3)).copy())
        x = x.permute(0, 3, 1, 2).float() / 255
        x = F.interpolate(x, size=(299, 299), mode='bilinear', align_corners=False)
        x = self.conv(2 * x - 1, 'Conv2d_1a_3x3', 32, 3, stride=2)
        x = self.conv(x, 'Conv2d_2a_3x3', 32, 3)
        x = self.conv(x, 'Conv2d_2b_3x3', 64, 3, padding=1)
        x = self.conv(F.max_pool2d(x, 3, stride=2), 'Conv2d_3b_1x1', 80)
        x = F.max_pool2d(self.conv(x, 'Conv2d_4a_3x3', 192, 3), 3, stride=2)
        x = self.a(self.a(self.a(x, 'Mixed_5b', 32), 'Mixed_5c', 64), 'Mixed_5d', 64)
        x = self.c(self.b(x, 'Mixed_6a'), 'Mixed_6b', 128)
        x = self.c(self.c(x, 'Mixed_6c', 160), 'Mixed_6d', 160)
        spatial = x[:, :7].permute(0, 2, 3, 1).flatten(1)
        x = self.d(self.c(x, 'Mixed_6e', 192), 'Mixed_7a')
        x = self.e(x, 'Mixed_7b', self.average)
        x = self.e(x, 'Mixed_7c', lambda x: F.max_pool2d(x, 3, stride=1, padding=1))
        pool = x.mean((2, 3))
        logits = pool @ self.tensor('fc.weight', CLASSES, 2048).T
        self.tensor('fc.bias', CLASSES)
        return {'pool': pool.numpy(), 'spatial': spatial.numpy(), 'logits': logits.numpy()}
