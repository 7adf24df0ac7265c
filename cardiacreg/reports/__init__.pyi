from .cohort import write_cohort_report as write_cohort_report
from .report import write_report as write_report
from .verdict import Verdict as Verdict, judge as judge
