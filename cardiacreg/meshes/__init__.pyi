from .fibres import FibreAngles as FibreAngles
from .files import write_volume_mesh as write_volume_mesh
from .tetrahedral import VolumeMesh as VolumeMesh, volume_mesh as volume_mesh
