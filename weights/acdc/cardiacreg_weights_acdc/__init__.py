"""Network weights that saw patients of ACDC, for `cardiacreg_nn`: CC BY-NC-SA 4.0, see LICENSE.

``cardiacreg_nn`` finds this folder by the entry point ``cardiacreg.weights``. There is nothing to import.
"""

__version__ = "1.0.0"
