.PHONY: install test test-portable lint format run

install:
	pip install -c constraints.txt -e ".[test,lint]"

test:
	python -m pytest

# The same tests with other arithmetic: no vector instructions beyond SSE 4, and two threads a process. Sums are then
# added up in another order, as on another processor, and every number is rounded a little differently: a test that fails
# here alone has a bound without room for that, or looks at chance. Variables given to make replace these, such as
# `make test-portable KERNELS="ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2" THREADS=1`. MKL_ENABLE_INSTRUCTIONS
# works on Intel processors alone; elsewhere MKL chooses by itself.
KERNELS = ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 OPENBLAS_CORETYPE=Nehalem
THREADS = 2
test-portable:
	$(KERNELS) BAYESDF_TEST_THREADS=$(THREADS) python -m pytest

lint:
	ruff check .
	ruff format --check .
	mypy

format:
	ruff check --fix .
	ruff format .

run:
	python -m bayesdf.experiments.source_attribution
