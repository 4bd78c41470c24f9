"""Train a codec from a folder of images and export its weights; see `--help` and docs/training.md."""

from latentzip.training.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
