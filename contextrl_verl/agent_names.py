"""Names that data set, agent loops and engine share; apart, so that naming one does not import verl's rollout.

``CARRIER`` and ``ANSWER`` are the agent loops. In a pair's ``extra_info``, ``OTHER_ORDERS`` are the messages of its
further rotations; in its row's ``extra_fields``, ``PARTS`` is how many tokens each of its rotations takes, its label
included.
"""

CARRIER = "contextrl_pair"
ANSWER = "contextrl_answer"
OTHER_ORDERS = "contextrl_other_orders"
PARTS = "contextrl_parts"
