from .bullseye import draw_bullseye as draw_bullseye
from .coordinates import (
    WallCoordinates as WallCoordinates,
    wall_coordinates as wall_coordinates,
)
from .csv_files import (
    write_measures_csv as write_measures_csv,
    write_measures_parquet as write_measures_parquet,
)
from .cycle import CineMeasures as CineMeasures, measure_cine as measure_cine
from .heart import Measures as Measures, measure as measure
