from .threads import Progress as Progress
