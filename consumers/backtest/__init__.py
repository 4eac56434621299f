"""The judge: a recorded log runs through recommenders test-then-learn, and a report says how good each was, and where.

`log` is what is judged on, `contender` what is judged, `schedule` and `protocol` decide who knows what when, `metrics` and
`bootstrap` turn ranks into figures, `report` and `plots` write them down; `product` is the running system as a contender.
"""
