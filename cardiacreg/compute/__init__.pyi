from .progress import ProgressBar as ProgressBar
from .threads import Progress as Progress
