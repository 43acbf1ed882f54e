"""``svco report``: one page of one or several runs, to look at while they run and after."""
