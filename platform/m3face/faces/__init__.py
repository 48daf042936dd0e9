"""What a face is: 19 label classes, 68 landmarks, attributes, languages.

Conventions, stated once: left and right are the person's; a landmark is (x, y) in pixels with pixel centres at
+0.5; languages are ISO 639-1 codes; attribute values are strings.
"""

from m3face.faces.attributes import (
    ATTRIBUTES,
    CELEBA_NAMES,
    PAIRS,
    WITHOUT_HAIR,
    Attribute,
    Mention,
    absence,
    from_celeba,
    to_celeba,
)
from m3face.faces.labels import (
    CLASSES,
    FLIP_PAIRS,
    ID,
    PALETTE,
    RAW_FOLDER_ORDER,
    LabelMap,
    SnapReport,
    check_map,
    flip_map,
    from_colours,
    resize_map,
    to_colours,
)
from m3face.faces.landmarks import (
    COUNT,
    FLIP,
    GROUPS,
    Landmarks,
    check_landmarks,
    draw_landmarks,
    flip_landmarks,
    resize_landmarks,
)
from m3face.faces.languages import CODE_BY_CODE3, LANGUAGES, Language
from m3face.faces.tracing import trace_landmarks

__all__ = [
    "ATTRIBUTES",
    "CELEBA_NAMES",
    "CLASSES",
    "CODE_BY_CODE3",
    "COUNT",
    "FLIP",
    "FLIP_PAIRS",
    "GROUPS",
    "ID",
    "LANGUAGES",
    "PAIRS",
    "PALETTE",
    "RAW_FOLDER_ORDER",
    "WITHOUT_HAIR",
    "Attribute",
    "LabelMap",
    "Landmarks",
    "Language",
    "Mention",
    "SnapReport",
    "absence",
    "check_landmarks",
    "check_map",
    "draw_landmarks",
    "flip_landmarks",
    "flip_map",
    "from_celeba",
    "from_colours",
    "resize_landmarks",
    "resize_map",
    "to_celeba",
    "to_colours",
    "trace_landmarks",
]
