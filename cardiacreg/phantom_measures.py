"""The measures of the synthetic hearts: mean and standard deviation between people, in mm.

Positions are in the heart frame of `cardiacreg.phantom_anatomy`. The numbers are statistics,
rounded, of measures taken from 20 adult end-diastolic anatomies (the healthy cohort of Rodero et
al., PLOS Comput Biol 17(4):e1008851, 2021), each scaled to the reference length. A radius profile
is a sum of real spherical harmonics, by degree l = 0, 1, ... and within a degree by order
m = -l..l (m < 0: sine, towards anterior; m > 0: cosine, towards the septum for the LV and the free
wall for the RV).
"""

REFERENCE_LENGTH_MM = 90.0
LV_CENTRE_MM = (0.0, 0.0, -36.0)
LV_AXIAL_STRETCH = 2.0

# Radius of the LV epicardium, the LV wall (epicardium minus endocardium) and the RV body in mm,
# about their centres; along z the LV radii count in units of LV_AXIAL_STRETCH mm.
LV_EPICARDIUM_MM = (
    *(32.7,),
    *(-1.5, -2.8, 1.9),
    *(0.4, -0.3, -0.6, 0.1, -0.8),
    *(-0.1, 0.0, 0.4, -0.1, -0.7, 0.0, 0.2),
    *(0.0, 0.1, 0.2, 0.3, 0.6, 0.2, 0.3, 0.1, 0.0),
    *(0.0, 0.0, -0.1, -0.2, -0.1, -0.4, 0.1, -0.1, -0.1, -0.1, 0.0),
)
LV_WALL_MM = (
    *(7.8,),
    *(0.2, -0.6, -0.3),
    *(0.2, 0.3, -1.8, -0.2, 0.1),
    *(-0.1, -0.3, -0.1, -0.1, 0.3, 0.0, 0.1),
    *(0.1, 0.0, 0.0, -0.1, 0.5, -0.3, 0.0, 0.0, -0.1),
    *(0.0, 0.0, 0.2, 0.0, 0.0, -0.5, 0.0, 0.0, -0.1, 0.0, 0.0),
)
RV_BODY_MM = (
    *(35.4,),
    *(0.8, -2.6, 1.2),
    *(-0.8, 0.9, 2.2, 2.3, -3.1),
    *(1.1, 0.0, 1.2, 0.8, 0.7, 1.6, -0.6),
    *(0.3, -0.5, 0.8, -0.3, 0.2, 1.4, -1.0, -0.7, 0.8),
    *(-0.3, -0.2, 0.5, -0.3, 0.4, -0.4, 0.5, 0.9, -0.3, -1.4, 1.3),
    *(-0.3, 0.0, 0.2, -0.2, 0.5, 0.1, -0.5, 0.1, 0.2, -0.2, -0.1, -0.7, 1.2),
    *(-0.4, 0.0, 0.0, 0.1, 0.3, -0.1, -0.3, -0.2, -0.2, 0.4, 0.5, -0.4, -0.3, -0.3, 0.8),
    *(-0.2, -0.1, 0.0, 0.1, 0.0, -0.1, 0.0, 0.1, 0.0, -0.3, -0.2, 0.1, 0.3, -0.2, -0.2, -0.1, 0.3),
)
# Standard deviation between people of the same radii, after scaling, at polar angles of 0, 30, 60, 90
# and 120 degrees (rows) in the ring's mean, offset, ovality and triangularity (columns).
VARIATION_ANGLES = (0.0, 30.0, 60.0, 90.0, 120.0)
LV_EPICARDIUM_SD_MM = (
    (0.2, 0.0, 0.0, 0.0),
    (0.4, 0.3, 0.2, 0.1),
    (1.1, 1.0, 0.6, 0.2),
    (2.0, 1.7, 0.8, 0.3),
    (1.4, 1.0, 0.7, 0.4),
)
LV_WALL_SD_MM = (
    (0.7, 0.0, 0.0, 0.0),
    (0.6, 0.4, 0.2, 0.1),
    (0.9, 0.6, 0.3, 0.2),
    (1.5, 0.6, 0.5, 0.3),
    (1.4, 0.8, 0.6, 0.4),
)
RV_BODY_SD_MM = (
    (1.6, 0.0, 0.0, 0.0),
    (1.3, 1.4, 0.8, 0.2),
    (1.4, 1.4, 1.3, 0.7),
    (1.9, 1.3, 1.5, 1.0),
    (1.7, 1.5, 1.5, 0.8),
)
VARIATION_LENGTH_DEGREES = 40.0
# Positions relative to the mitral centre, mm: RV centre, tricuspid and pulmonary valve centres.
RV_CENTRE_MM, RV_CENTRE_SD_MM = (-40.4, -2.5, -36.1), (2.0, 1.7, 4.4)
TRICUSPID_MM, TRICUSPID_SD_MM = (-43.2, 14.7, -9.4), (2.2, 1.5, 4.8)
PULMONARY_MM, PULMONARY_SD_MM = (-31.1, -42.1, -9.5), (2.4, 2.9, 6.5)
# The LV outflow: a tube from inside the cavity through the aortic valve centre, which also carves the
# crest between RV inflow and outflow.
AORTIC_MM, AORTIC_SD_MM = (-22.6, -14.1, 1.9), (1.8, 1.5, 2.7)
OUTFLOW_START_MM = (-9.0, -5.0, -14.0)
OUTFLOW_RADIUS_MM, OUTFLOW_WALL_MM, OUTFLOW_BEYOND = 10.5, 2.0, 1.3
# Thickness of the crest of RV muscle around that tube, over the RV wall's thickness.
CREST_WALL_RATIO = 1.8
# Height of the RV roof over the straight line from the tricuspid (0) to the pulmonary centre (1).
ROOF_POSITIONS = (-0.40, -0.15, 0.10, 0.35, 0.55, 0.75, 0.90, 1.10)
ROOF_MM = (-1.5, -0.4, 0.1, 1.9, -6.1, -3.1, 4.9, -5.0)
ROOF_SD_MM = (2.9, 0.8, 1.4, 1.9, 2.0, 1.7, 1.1, 2.4)
# Its rise per mm along x, off that line, at four places on it.
ROOF_SLOPE_POSITIONS = (-0.40, 0.10, 0.55, 0.90)
ROOF_SLOPE, ROOF_SLOPE_SD = (-0.06, 0.10, -0.28, -0.11), (0.25, 0.10, 0.12, 0.15)
# Least height of the lowest RV wall over the LV's epicardial apex (the RV cavity's lowest point is
# 7.0 +- 2.6 above it in the cohort); opening radii of the two RV valves.
RV_APEX_OFFSET_MM = 1.0
PULMONARY_OPENING_MM = (14.0, 10.0, 8.0)
# Width over which the RV wall's outer surface blends into the LV's at the insertions, over the RV
# wall's thickness.
INSERTION_FILLET_RATIO = 1.5
RV_WALL_ASYMMETRY = 0.06
TRICUSPID_RADIUS_MM, PULMONARY_RADIUS_MM = 17.0, 12.0
RIM_MM = 5.0
