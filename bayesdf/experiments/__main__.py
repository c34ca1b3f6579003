"""The list of experiments: `python -m bayesdf.experiments`."""

from bayesdf.experiments.listing import show

if __name__ == "__main__":
    show()
