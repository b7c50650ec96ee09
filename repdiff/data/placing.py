"""Which split each record goes to, by the rule that the settings choose."""

from collections.abc import Mapping, Sequence

from repdiff.data import splits
from repdiff.data.deidentify import Hasher, hidden
from repdiff.data.settings import SIMULATED, TFDS, DataSettings
from repdiff.data.slices import Skipped
from repdiff.data.work import Record


def place(found: Sequence[Record], settings: DataSettings, hasher: Hasher | None,
          kept: Mapping[str, str]) -> tuple[list[str | None], list[Skipped]]:
    """The split of each record, None where it is left out, and why those are.

    Where the source names splits, these stand. Otherwise patients without any label are pre-trained
    on and the others dealt out. A slice without a label is of no use but in `pretrain`.

    Args:
      hasher: what hid the names in the records.
      kept: patient -> split of an earlier data set, where the patient stays.
    """
    if settings.source == SIMULATED or settings.split_column:
        places = [record.split for record in found]
    else:
        places = _dealt(found, settings, hasher, kept)
    left_out = []
    for index, (record, where) in enumerate(zip(found, places, strict=True)):
        if where is None:
            left_out.append(Skipped(record.source, 'has no split in the label file.'))
        elif where != 'pretrain' and record.label < 0:
            left_out.append(Skipped(record.source, f'has no label, which {where} needs.'))
            places[index] = None
    return places, left_out


def _dealt(found: Sequence[Record], settings: DataSettings, hasher: Hasher | None,
           kept: Mapping[str, str]) -> list[str]:
    fixed = _fixed(found, settings, hasher)
    fractions = settings.labelled_fractions()
    if settings.source.startswith(TFDS):
        fractions = {name: share for name, share in fractions.items()
                     if name not in fixed.values()}
        total = sum(fractions.values())
        fractions = {name: share / total for name, share in fractions.items()}
    free = [record for record in found if record.patient not in fixed]
    stratum = splits.strata((record.patient, record.label) for record in free)
    fixed |= {patient: 'pretrain' for patient, label in stratum.items() if label < 0}
    stratum = {patient: label for patient, label in stratum.items() if label >= 0}
    order = {record.patient: record.order for record in free}
    dealt = fixed | splits.assign(stratum, fractions, order, kept)
    return [dealt[record.patient] for record in found]


def _fixed(found: Sequence[Record], settings: DataSettings, hasher: Hasher | None) \
        -> dict[str, str]:
    """Patients who are not dealt out: those of TFDS's own splits, or of other facilities."""
    if settings.source.startswith(TFDS):
        # TFDS's validation and test splits stand; its training images make the others.
        return {record.patient: record.split for record in found if record.split != 'train'}
    if not settings.downstream_facilities:
        return {}
    # Names are hidden on both sides, so that no error shows one.
    pretrain, downstream = ([hidden('facility', name, hasher) for name in names] for names in (
        settings.pretrain_facilities, settings.downstream_facilities))
    roles = splits.roles((record.facility for record in found), pretrain, downstream)
    role = [roles[record.facility] for record in found]
    splits.check_patients((record.patient, each, hidden('file', record.source, hasher))
                          for record, each in zip(found, role, strict=True))
    return {record.patient: each for record, each in zip(found, role, strict=True)
            if each == 'pretrain'}
