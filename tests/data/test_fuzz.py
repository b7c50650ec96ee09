"""A short run of the fuzzer; the long one is `python tests/data/fuzz.py --count=2000`."""

import random

import fuzz
import mutations


def test_mutated_files_are_read_or_listed():
    outcomes, failures = fuzz.run(count=300, seed=1)
    assert failures == []
    assert len(outcomes) == 9 and all(counts['skipped'] for counts in outcomes.values())
    assert sum(counts['read'] for counts in outcomes.values()) > 30


def test_the_fuzzer_sees_a_crash_and_goes_on(tmp_path, monkeypatch):
    reader = fuzz.Reader()
    path = tmp_path / 'a.csv'
    path.write_bytes(fuzz.TABLE)
    reader._process.kill()
    reader._process.join()
    assert 'died' in reader(path, 20)[0]
    assert reader(path, 20)[0] == 'read'
    reader.close()


def test_mutations_repeat_and_change():
    first, again, other = (
        mutations.mutate(fuzz.TABLE, '.csv', random.Random(seed)) for seed in ('1', '1', '2')
    )
    assert first == again and len({first, other, fuzz.TABLE}) == 3
