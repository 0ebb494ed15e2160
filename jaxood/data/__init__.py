"""Images by name: public sets, embedded sets and the user's own files, as uint8 arrays.

`load` and `open` read them (`jaxood.data.loading`); `title` writes their names for a reader.
"""

from jaxood.data.augment import crop, crop_and_flip, flip
from jaxood.data.images import AbsentError, DataError, Images
from jaxood.data.loading import load, open
from jaxood.data.naming import title
from jaxood.data.registry import DATASETS, Dataset, names
from jaxood.data.transforms import contrast, rotate, scale, unit_scale

__all__ = [
    "DATASETS",
    "AbsentError",
    "DataError",
    "Dataset",
    "Images",
    "contrast",
    "crop",
    "crop_and_flip",
    "flip",
    "load",
    "names",
    "open",
    "rotate",
    "scale",
    "title",
    "unit_scale",
]
