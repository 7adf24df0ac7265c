from .correspondence import carried_surface as carried_surface
from .extraction import surfaces_of as surfaces_of
from .files import read_surface as read_surface, write_surface as write_surface
from .triangles import Surface as Surface
