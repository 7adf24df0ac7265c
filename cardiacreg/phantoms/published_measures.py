"""The measures of the synthetic hearts: mean and standard deviation between people, in mm.

Positions are in the heart's coordinates of `cardiacreg.phantoms.anatomy`. The numbers are statistics,
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
# Position of the RV centre relative to the mitral centre, mm.
RV_CENTRE_MM, RV_CENTRE_SD_MM = (-40.4, -2.5, -36.1), (2.0, 1.7, 4.4)
# The base of the RV: centres of tricuspid, pulmonary and aortic valve relative to the mitral centre, then
# the height of the RV roof over the straight line from the tricuspid to the pulmonary centre, by position
# on that line (rows; 0 the tricuspid, 1 the pulmonary centre) and by distance in x off it (columns, mm).
# These vary together: mean, and the principal modes of variation, one standard deviation each.
ROOF_ALONG = (-0.4, -0.2, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.15)
ROOF_ACROSS_MM = (-24.0, -12.0, 0.0, 12.0, 22.0)
RV_BASE_MM = (
    *(-44.0, 15.0, -9.5, -31.8, -42.9, -9.6, -23.0, -14.4, 2.0),
    *(-2.1, -1.6, -1.3, -1.6, -2.4),
    *(-2.5, -0.8, -0.4, -0.3, -0.4),
    *(-2.7, -0.3, -0.2, 0.7, 0.5),
    *(-2.5, 1.2, 1.4, -0.2, -2.9),
    *(-2.9, 3.4, -1.0, -6.7, -7.3),
    *(-4.2, -2.2, -5.9, -8.1, -7.6),
    *(-1.3, 1.8, -0.2, -1.7, -4.5),
    *(2.1, 2.6, 1.5, 0.5, -1.5),
    *(3.4, -0.5, -2.4, -1.4, 0.5),
)
RV_BASE_MODES_MM = (
    (
        *(0.3, 0.0, 3.5, -0.1, 0.3, 2.0, 1.0, 0.5, 1.2),
        *(-0.8, -0.5, -0.3, -0.5, -1.2),
        *(-0.2, 0.1, 0.2, 0.0, -1.5),
        *(0.4, 0.5, 0.3, -0.3, -1.4),
        *(1.0, 0.9, 0.3, -0.7, -1.4),
        *(1.5, 0.9, -0.5, -1.0, -1.2),
        *(1.3, 0.6, -0.1, -0.6, -1.4),
        *(2.2, 1.9, 0.8, -0.4, -2.4),
        *(2.7, 0.7, -1.3, -2.8, -4.5),
        *(2.3, -1.2, -4.1, -5.9, -7.2),
    ),
    (
        *(-0.7, -1.0, 2.0, -1.5, 1.7, -4.9, -0.1, 0.2, -1.3),
        *(-1.8, -1.8, -1.8, -2.1, -2.2),
        *(-0.7, -0.2, 0.0, -0.3, -1.5),
        *(0.3, 1.3, 1.2, 0.8, -0.5),
        *(1.2, 2.0, 1.6, 0.0, -0.9),
        *(1.8, 1.9, 0.6, -0.6, -1.0),
        *(2.0, 1.9, 0.9, 0.2, -0.5),
        *(0.1, 1.0, 1.3, 0.8, 0.2),
        *(-1.8, -1.0, 0.1, 0.6, 0.7),
        *(-3.3, -1.6, -0.4, 0.2, 1.0),
    ),
    (
        *(1.4, -0.4, -2.7, 0.7, 0.8, -3.8, 0.4, 0.1, -1.6),
        *(-1.1, -0.9, -0.4, 0.8, 3.0),
        *(-0.9, -0.3, 0.0, -0.1, 1.3),
        *(-0.8, 0.0, 0.1, 0.2, 0.9),
        *(-1.3, -0.1, 0.2, 1.1, 1.7),
        *(-1.9, -0.8, 0.6, 1.8, 2.4),
        *(-1.3, -0.7, 0.8, 1.6, 2.1),
        *(-0.8, -0.4, 0.5, 0.9, 0.9),
        *(-0.8, -0.6, -0.5, -0.7, -0.9),
        *(-1.0, -1.7, -2.3, -2.6, -2.7),
    ),
    (
        *(0.9, -0.4, 1.0, -0.1, 1.0, -1.4, 0.8, -0.1, -0.1),
        *(-1.6, -1.4, -1.3, -1.3, -1.5),
        *(-1.7, -0.4, -0.1, -0.3, -0.5),
        *(-1.6, 0.3, 0.3, 0.1, 0.0),
        *(-1.2, 0.3, 0.2, 0.2, 0.3),
        *(-1.4, -0.5, 0.4, 0.4, 0.3),
        *(-1.3, -0.5, 0.5, 0.6, 0.0),
        *(-0.1, 0.0, 0.1, -0.1, -0.4),
        *(1.6, 1.2, 0.4, -0.1, -0.4),
        *(3.2, 2.3, 1.7, 1.0, 0.0),
    ),
    (
        *(0.9, -0.4, 0.6, 0.4, -0.2, 1.1, 0.0, -0.1, 0.3),
        *(-0.7, -0.2, 0.0, -0.4, -1.2),
        *(-1.0, 0.0, 0.4, 0.3, -0.8),
        *(-1.2, 0.2, 0.4, 0.4, -0.5),
        *(-1.2, 0.3, 0.0, -0.4, -0.6),
        *(-1.8, -1.1, -1.3, -1.0, -0.6),
        *(-1.3, -1.2, -0.9, -0.6, -0.4),
        *(-0.7, -0.6, -0.8, -0.4, 0.0),
        *(-0.8, -0.7, -0.7, -0.1, 0.4),
        *(-1.3, -1.5, -1.3, -0.3, 0.8),
    ),
    (
        *(0.0, 0.1, 0.0, 0.6, -0.3, 1.4, -0.2, 0.0, 0.7),
        *(-0.9, -0.9, -1.0, -1.1, -1.1),
        *(-0.4, -0.9, -0.9, -0.8, -0.1),
        *(0.0, -1.1, -1.0, -0.7, 0.2),
        *(0.6, -0.5, -0.4, 0.0, 0.6),
        *(0.8, 0.5, -0.2, 0.5, 1.0),
        *(0.2, -0.1, -0.4, 0.4, 1.1),
        *(-0.2, -0.3, 0.0, 0.4, 0.8),
        *(-0.4, -0.2, 0.2, 0.1, 0.2),
        *(-0.6, -0.2, 0.1, -0.2, -0.4),
    ),
)
# The LV outflow: a tube from inside the cavity through the aortic valve centre, which also carves the
# crest between RV inflow and outflow.
OUTFLOW_START_MM = (-9.0, -5.0, -14.0)
OUTFLOW_RADIUS_MM, OUTFLOW_WALL_MM, OUTFLOW_BEYOND = 10.5, 2.0, 1.3
# Thickness of the crest of RV muscle around that tube, over the RV wall's thickness.
CREST_WALL_RATIO = 1.8
# Least height of the lowest RV wall over the LV's epicardial apex (the RV cavity's lowest point is
# 7.0 +- 2.6 above it in the cohort); opening radii of the two RV valves.
RV_APEX_OFFSET_MM = 1.0
PULMONARY_OPENING_MM = (14.0, 10.0, 8.0)
# Width over which the RV wall's outer surface blends into the LV's at the insertions, over the RV
# wall's thickness.
INSERTION_FILLET_RATIO = 1.5
RV_WALL_ASYMMETRY = 0.06
TRICUSPID_RADIUS_MM, PULMONARY_RADIUS_MM = 17.0, 12.0
RIM_MM, RV_RIM_MM = 5.0, 2.5
# Radii of the RV under its two valves, and how far down they hold.
RV_INFLOW_MM, RV_OUTFLOW_MM, RV_OPENING_DEPTH_MM = 18.0, 11.0, 6.0
