"""Names under which the agent loops are registered; apart, so that naming one does not import verl's rollout."""

CARRIER = "contextrl_pair"
ANSWER = "contextrl_answer"
