"""Has pytest run the code blocks of README.md and docs/ as tests."""

import pytest

pytest.register_assert_rewrite("tests.docs.code_blocks")

from tests.docs.code_blocks import documents  # noqa: E402 - its asserts have to be rewritten first

pytest_collect_file = documents.pytest()
