from .contours import labels_from_contours as labels_from_contours
from .guide_point_files import write_guide_points as write_guide_points
from .guide_points import GuidePoints as GuidePoints, read_guide_points as read_guide_points
from .image_planes import ImagePlane as ImagePlane
