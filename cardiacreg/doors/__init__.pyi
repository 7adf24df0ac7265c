from .contours import labels_from_contours as labels_from_contours
from .conversion import Conversion as Conversion, convert as convert
from .cvi42 import labels_from_cvi42 as labels_from_cvi42, read_cvi42 as read_cvi42
from .dicom_cine import CineStack as CineStack, read_dicom_cine as read_dicom_cine
from .dicom_seg import read_dicom_seg as read_dicom_seg, write_dicom_seg as write_dicom_seg
from .dicom_writing import write_dicom_cine as write_dicom_cine
from .guide_point_files import write_guide_points as write_guide_points
from .guide_points import GuidePoints as GuidePoints, read_guide_points as read_guide_points
from .image_planes import ImagePlane as ImagePlane
from .segmentation_files import write_segmentation as write_segmentation
