from .bullseye import draw_bullseye as draw_bullseye
from .csv_files import write_measures_csv as write_measures_csv
from .heart import Measures as Measures, measure as measure
