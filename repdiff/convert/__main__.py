"""`python -m repdiff.convert dinov2|sd_vae|dit|inception --source=FILE_OR_HUB_ID --out=DIR`."""

import argparse

from repdiff.convert import store
from repdiff.errors import exit_on_user_error


def main() -> None:
    parser = argparse.ArgumentParser(
        prog='python -m repdiff.convert',
        description='Converts published PyTorch weights to an Orbax checkpoint for repdiff.')
    parser.add_argument('kind', choices=sorted(store.KINDS), help='what the weights are')
    parser.add_argument('--source', required=True,
                        help='a .safetensors, .pth, .pt or .bin file, or a Hugging Face id')
    parser.add_argument('--out', required=True, help='the directory to make')
    arguments = parser.parse_args()
    with exit_on_user_error():
        info = store.convert(arguments.kind, arguments.source, arguments.out)
        print(f'{arguments.out}: {info["kind"]} with {info["parameters"]:,} parameters. '
              f'{info["licence"]}')


if __name__ == '__main__':
    main()
