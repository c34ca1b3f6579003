"""Keys and latents are those of the RFC and of the format, and a secret is kept."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bayesdf import ledger
from bayesdf.ledger import keys
from bayesdf.ledger.errors import LedgerError
from tests.ledger.toy import SECRET


def test_hkdf_gives_the_vectors_of_rfc_5869() -> None:
    key = keys.derive(bytes([0x0B] * 22), bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    assert key.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    key = keys.derive(bytes([0x0B] * 22), b"", b"", 42)
    assert key.hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"


def test_latents_are_standard_normal_and_every_sample_has_its_own() -> None:
    epoch = keys.epoch_key(SECRET, "toy", 0)
    values = keys.expand_to_latents([keys.record_key(epoch, record) for record in range(400)], 100).double().numpy()
    assert stats.kstest(values.ravel(), "norm").pvalue > 0.01
    assert abs(values.mean()) < 0.02 and abs(values.std() - 1.0) < 0.02
    between = np.corrcoef(values)[np.triu_indices(400, 1)]
    assert abs(between.mean()) < 0.005 and between.std() == pytest.approx(0.1, rel=0.05)  # 1 / sqrt(100)
    along = np.corrcoef(values.T)[np.triu_indices(100, 1)]
    assert along.std() == pytest.approx(0.05, rel=0.05)
    assert len(np.unique(values)) > 0.99 * values.size


def test_latents_stay_what_they_were() -> None:
    """A ledger must open years later: these values are part of the format."""
    key = keys.record_key(keys.epoch_key(SECRET, "toy", 0), 1)
    np.testing.assert_allclose(
        keys.expand_to_latents([key], 4)[0].numpy(), [0.53648335, 1.69736826, -0.04757425, 1.14476180], rtol=1e-6
    )


def test_latents_differ_by_secret_generator_epoch_and_record() -> None:
    derived = {
        keys.record_key(keys.epoch_key(secret, name, epoch), record)
        for secret in (SECRET, bytes(32))
        for name in ("toy", "toy2")
        for epoch in (0, 1)
        for record in (1, 11)
    }
    assert len(derived) == 16
    assert keys.expand_to_latents(sorted(derived), 2000).abs().max() < 6.0


def test_a_secret_is_kept_from_others(tmp_path: Path) -> None:
    secret = ledger.new_secret(tmp_path / "secret")
    assert ledger.load_secret(tmp_path / "secret") == secret and len(secret) == 32
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0
    with pytest.raises(LedgerError, match="exists"):
        ledger.new_secret(tmp_path / "secret")
    (tmp_path / "wrong").write_text("no secret")
    for name in ("wrong", "missing"):
        with pytest.raises(LedgerError, match="new_secret wrote"):
            ledger.load_secret(tmp_path / name)
