"""The list of experiments: `python -m bayesdf`."""

from bayesdf.experiments.listing import show

if __name__ == "__main__":
    show()
