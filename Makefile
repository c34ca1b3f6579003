.PHONY: install test lint format run

install:
	pip install -c constraints.txt -e ".[test,lint]"

test:
	python -m pytest

lint:
	ruff check .
	ruff format --check .
	mypy

format:
	ruff check --fix .
	ruff format .

run:
	python -m bayesdf.experiments.source_attribution
