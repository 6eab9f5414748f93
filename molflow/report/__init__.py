"""What a finished run leaves behind: its folder, pictures, an HTML page, and a table to read in the shell."""

from molflow.report.folder import FORMAT, check_folder, record, save
from molflow.report.page import notebook_table, write_report
from molflow.report.pictures import SHOWN, draw_molecules, draw_optimisation
from molflow.report.summary import summary

__all__ = ["FORMAT", "SHOWN", "check_folder", "draw_molecules", "draw_optimisation", "notebook_table", "record", "save",
           "summary", "write_report"]
