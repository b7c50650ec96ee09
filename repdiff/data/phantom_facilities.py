"""The twelve simulated facilities: scanner, reconstruction, display window and habits of each."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Facility:
    """How a facility scans and shows a head.

    window: (centre, width) HU; noise: standard deviation in HU of a pixel of 1 mm; blur: standard
    deviation in mm of the point spread; edge: overshoot of an edge-enhancing kernel, 0 for none;
    matrix: pixels a side of the native reconstruction; field_of_view: mm; rotation and wobble: mean
    and standard deviation of the head's rotation, degrees; offset: calibration error, HU; cupping:
    residual brightening beside bone, HU; rest_radius, rest_span: the head-rest's arc, mm and
    degrees to either side of its lowest point (0: none in the field of view).
    """

    centre: float
    width: float
    noise: float
    blur: float
    edge: float
    matrix: int
    field_of_view: float
    rotation: float
    wobble: float
    offset: float
    cupping: float
    rest_radius: float
    rest_span: float


FACILITIES = {
    '01': Facility(40, 80, 4.5, 0.75, 0.00, 512, 232, 0, 5, 0.0, 3.0, 112, 50),
    '02': Facility(35, 80, 4.0, 0.95, 0.00, 512, 230, 2, 4, -0.5, 3.5, 112, 60),
    '03': Facility(40, 100, 6.5, 0.60, 0.20, 512, 250, -3, 6, 1.0, 5.0, 125, 75),
    '04': Facility(38, 90, 5.0, 1.30, 0.00, 320, 240, 0, 9, 0.5, 2.5, 118, 0),
    '05': Facility(30, 80, 3.5, 1.50, 0.00, 256, 220, 4, 5, -1.0, 2.0, 108, 45),
    '06': Facility(45, 120, 8.0, 0.65, 0.30, 512, 256, -6, 7, 1.5, 5.5, 128, 85),
    '07': Facility(35, 70, 4.5, 1.05, 0.00, 400, 226, 1, 3, 0.0, 3.0, 110, 55),
    '08': Facility(40, 80, 7.0, 0.80, 0.15, 512, 244, 7, 8, -1.5, 4.0, 120, 40),
    '09': Facility(50, 110, 6.0, 1.15, 0.00, 320, 236, -2, 10, 2.0, 4.5, 114, 65),
    '10': Facility(36, 72, 3.0, 1.75, 0.00, 256, 230, 0, 4, 0.0, 2.0, 116, 0),
    '11': Facility(42, 94, 9.0, 0.55, 0.35, 512, 260, 5, 12, 1.0, 6.0, 130, 80),
    '12': Facility(38, 84, 5.5, 0.90, 0.10, 480, 238, -4, 6, -0.5, 3.5, 115, 50),
}


def facility(name: str, shift: float) -> Facility:
    """Facility `name` ('01'..'12'); shift 0 makes all of them facility 01, 1 leaves the table's."""
    home, other = FACILITIES['01'], FACILITIES[name]
    pairs = ((f.name, getattr(home, f.name), getattr(other, f.name)) for f in fields(Facility))
    blend = {field: a + shift * (b - a) for field, a, b in pairs}
    return Facility(**{**blend, 'matrix': round(blend['matrix'])})
