"""What another policy would have earned, judged from what was logged: estimators, their support and intervals, position bias.

Estimates of choices (`estimators`) and of lists (`slates`) end in `Terms`, of which `intervals` makes a value with its
interval and `support` says whether the log can carry it.
"""
