from .contours import labels_from_contours as labels_from_contours
from .dicom_cine import CineStack as CineStack, read_dicom_cine as read_dicom_cine
from .guide_point_files import write_guide_points as write_guide_points
from .guide_points import GuidePoints as GuidePoints, read_guide_points as read_guide_points
from .image_planes import ImagePlane as ImagePlane
